"""The main job: from a source of images to a verified endpoint."""

from zenml import Model, pipeline

from darkroom.config import Config
from darkroom.config.sagemaker import Placement
from darkroom.evaluation.evaluate import refusal
from steps.batch import predict_split
from steps.compile import compile_model
from steps.deploy import deploy_model
from steps.diagnose import diagnose_training
from steps.evaluate import evaluate_model
from steps.hooks import begin, tell_why
from steps.ingest import ingest_images
from steps.predict import predict_images
from steps.register import register_model
from steps.train import train_model
from steps.tune import tune_hyperparameters
from steps.validate import validate_dataset


@pipeline(dynamic=True, name="training", on_init=begin, on_failure=tell_why)
def training_pipeline(
    config: Config,
    source_version: str,
    keep_endpoint: bool = False,
    placement: Placement = Placement(),  # noqa: B008 - immutable
    weights_version: str = "",
    rules_version: str = "",
) -> None:
    """Ingest, validate, tune, train, diagnose, compile, evaluate, register; then the gate.

    Past the gate deploy, predict.

    Args:
        config: the whole configuration; each component gets the sections that it needs, so
            that a change invalidates no other.
        source_version: changes when the content of the source does.
        keep_endpoint: leave the endpoint running.
        placement: where the heavy work runs.
        weights_version: changes when the content of the initial weights does.
        rules_version: changes when the files of the user's own rules do.
    """
    seed, name = config.training.seed, config.tracking.model_name
    ingested = ingest_images(config.data.source, source_version, config.data, seed, placement)
    dataset, _, _ = validate_dataset(ingested, config.data, placement)
    hyperparameters = config.hyperparameters
    if config.tuning.enabled:
        hyperparameters, _ = tune_hyperparameters(
            dataset, hyperparameters, config.tuning, config.debugging, placement, weights_version
        )
    bundle, recording, job = train_model(
        dataset,
        hyperparameters,
        config.tracking,
        config.debugging,
        placement,
        weights_version,
        # Rules that judge while it runs may end it.
        rules_version if config.diagnosis.live else "",
    )
    if config.debugging.is_on and config.diagnosis.enabled:
        diagnose_training(recording, dataset, config.diagnosis, placement, rules_version)
    if config.compilation.enabled:
        bundle, _, _ = compile_model(bundle, dataset, config.compilation)
    evaluation, _, _ = evaluate_model(bundle, dataset, config.evaluation, seed)
    registered = register_model.with_options(model=Model(name=name))(
        bundle, dataset, evaluation, name, job, config.deployment, placement
    )
    if refusal(evaluation.load().values(), deployment=config.deployment) is None:
        endpoint = deploy_model(bundle, registered, config.deployment, keep_endpoint, placement)
        predict_images(
            endpoint, bundle, dataset, evaluation, config.deployment, keep_endpoint, placement
        )
        if config.batch.split != "none":
            predict_split(bundle, dataset, config.batch, placement)
