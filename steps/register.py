"""Register: a version in MLflow's and in ZenML's model registry."""

from typing import Annotated

from zenml import log_metadata, step

from darkroom.dataset import Dataset
from darkroom.evaluation.evaluate import Evaluation
from darkroom.model.bundle import Bundle
from darkroom.tracking.registry import RegisteredModel, register
from steps.cache_policy import depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on("darkroom.tracking.registry", "darkroom.tracking.pyfunc"),
)
def register_model(
    bundle: Bundle, dataset: Dataset, evaluation: Evaluation, name: str
) -> Annotated[RegisteredModel, "registered_model"]:
    """Register the bundle with its metrics and the fingerprint of its data.

    Args:
        bundle: the packed model.
        dataset: an image of it becomes the input example.
        evaluation: of the test split.
        name: of the model in both registries.
    """
    metrics = {f"test_{metric}": value for metric, value in evaluation.values().items()}
    example = dataset.file(dataset.split("test")[0]).read_bytes()
    registered = register(bundle, name=name, example=example, metrics=metrics)
    log_metadata(
        {
            "metrics": metrics,
            "data_fingerprint": bundle.metadata.data_fingerprint,
            "bundle_version": bundle.metadata.version,
            "mlflow_model": registered.uri,
        },
        infer_model=True,
    )
    return registered
