"""The main job: from a source of images to a verified endpoint."""

from zenml import Model, pipeline

from darkroom.config import Config
from darkroom.evaluation.gate import refusal
from steps.deploy import deploy_model
from steps.evaluate import evaluate_model
from steps.ingest import ingest_images
from steps.predict import predict_images
from steps.register import register_model
from steps.train import train_model
from steps.tune import tune_hyperparameters
from steps.validate import validate_dataset


@pipeline(dynamic=True, name="training")
def training_pipeline(config: Config, source_version: str, keep_endpoint: bool = False) -> None:
    """Ingest, validate, tune, train, evaluate, register; past the gate deploy and predict.

    Args:
        config: the whole configuration; each component gets the sections that it needs, so
            that a change invalidates no other.
        source_version: changes when the content of the source does.
        keep_endpoint: leave the endpoint running.
    """
    seed = config.training.seed
    ingested = ingest_images(config.data.source, source_version, config.data, seed)
    dataset, _, _ = validate_dataset(ingested, config.data)
    hyperparameters = config.hyperparameters
    if config.tuning.enabled:
        hyperparameters, _ = tune_hyperparameters(dataset, hyperparameters, config.tuning)
    bundle = train_model(dataset, hyperparameters, config.tracking)
    evaluation, _, _ = evaluate_model(bundle, dataset, config.evaluation, seed)
    registered = register_model.with_options(model=Model(name=config.tracking.model_name))(
        bundle, dataset, evaluation, config.tracking.model_name
    )
    if refusal(evaluation.load().values(), deployment=config.deployment) is None:
        endpoint = deploy_model(bundle, registered, config.deployment, keep_endpoint)
        predict_images(endpoint, dataset, evaluation, config.deployment, keep_endpoint)
