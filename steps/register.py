"""Register: a version in MLflow's and in ZenML's model registry."""

from typing import Annotated

from zenml import log_metadata, step

from darkroom.config import DeploymentConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from darkroom.evaluation.evaluate import Evaluation, refusal
from darkroom.models.bundle import Bundle
from darkroom.tracking.registry import RegisteredModel, register
from steps.cache_policy import depends_on
from steps.chosen_backend import chosen_backend


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.evaluation.evaluate", "darkroom.tracking.registry", "darkroom.tracking.pyfunc"
    ),
)
def register_model(
    bundle: Bundle,
    dataset: Dataset,
    evaluation: Evaluation,
    name: str,
    training_job: str,
    deployment: DeploymentConfig,
    placement: Placement,
) -> Annotated[RegisteredModel, "registered_model"]:
    """Register the bundle with its metrics and the fingerprint of its data.

    Args:
        bundle: the packed model.
        dataset: an image of it becomes the input example.
        evaluation: of the test split.
        name: of the model in every registry.
        training_job: the managed job that trained it; empty: none.
        deployment: the gate, which decides whether SageMaker's registry has it as approved.
        placement: whether SageMaker's registry gets it too.
    """
    metrics = {f"test_{metric}": value for metric, value in evaluation.values().items()}
    example = dataset.file(dataset.split("test")[0]).read_bytes()
    passed = refusal(evaluation.values(), deployment=deployment) is None
    package = chosen_backend(placement).register(
        bundle,
        name=name,
        metrics=evaluation.values(),
        dataset=dataset,
        training_job=training_job,
        passed=passed,
    )
    registered = register(bundle, name=name, example=example, metrics=metrics)
    log_metadata(
        metadata={
            "metrics": metrics,
            "data_fingerprint": bundle.metadata.data_fingerprint,
            "bundle_version": bundle.metadata.version,
            "mlflow_model": registered.uri,
            "model_package": package or "none",
        },
        infer_model=True,
    )
    return registered.model_copy(update={"package": package})
