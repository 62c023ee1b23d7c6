"""Train: the final training with the best values, and its packing as a bundle."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from zenml import step

from darkroom.base.errors import DarkroomError
from darkroom.base.progress import terminal_progress
from darkroom.config import Hyperparameters, TrackingConfig
from darkroom.config.debugging import Debugging, DiagnosisConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from darkroom.models.bundle import Bundle
from darkroom.telemetry.recording import Recording
from darkroom.tracking.runs import active_run, log_epoch, training_run
from materializers.bundle import BundleMaterializer
from materializers.recording import RecordingMaterializer
from steps.cache_policy import depends_on
from steps.chosen_backend import chosen_backend
from steps.training_report import leave_report, report_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.backends.local.training",
        "darkroom.backends.storage.weights",
        "darkroom.reports.figures",
        "darkroom.tracking.runs",
    ),
    output_materializers={
        "model_bundle": BundleMaterializer,
        "training_recording": RecordingMaterializer,
    },
)
def train_model(
    dataset: Dataset,
    hyperparameters: Hyperparameters,
    tracking: TrackingConfig,
    debugging: Debugging,
    placement: Placement,
    weights_version: str,
    rules_version: str,
) -> tuple[
    # ZenML hands outputs on with those first that have a materializer of their own.
    Annotated[Bundle, "model_bundle"],
    Annotated[Recording, "training_recording"],
    Annotated[str, "training_job"],
]:
    """Train, keep the best epoch, export and check it. A killed training resumes.

    One that fails is diagnosed at once, for no later component will be reached.

    Args:
        dataset: cleaned.
        hyperparameters: everything that shapes the training.
        tracking: whether the machine is sampled meanwhile.
        debugging: how the training is recorded and judged.
        placement: whether the training runs here or as a managed job, whose name is returned.
        weights_version: of the initial weights' content, a part of the cache key.
        rules_version: likewise of the user's rules, where they judge while training runs.
    """
    from darkroom.reports.figures import training_figure

    # Sampled is this machine, which is not the one that a managed job trains on.
    sampled = tracking.system_metrics and placement.jobs is None
    with (
        _diagnosed_on_failure(dataset, config=debugging.diagnosis, placement=placement),
        training_run(system_metrics=sampled) as run,
    ):
        run.log(parameters=hyperparameters.model_dump())
        trained = chosen_backend(placement).train(
            dataset,
            hyperparameters=hyperparameters,
            debugging=debugging,
            on_epoch=lambda epoch: log_epoch(run, epoch),
            progress=terminal_progress(),
        )
    figure = training_figure(
        trained.history, best_epoch=trained.best_epoch, metric=hyperparameters.objective
    )
    active_run().figure(figure, file="figures/training.png")
    return trained.bundle, Recording(trained.recording), trained.job or ""


@contextmanager
def _diagnosed_on_failure(
    dataset: Dataset, *, config: DiagnosisConfig, placement: Placement
) -> Iterator[None]:
    """Let the error of a training say what the rules find in its recording."""
    from darkroom.backends.contract import FailedTrainingError
    from darkroom.debugging.diagnosis import summary_lines

    try:
        yield
    except FailedTrainingError as failure:
        if not config.enabled:
            raise
        recording = failure.recording
        try:
            told = report_on(
                recording, dataset=dataset, config=config, placement=placement, failure=str(failure)
            )
            where = leave_report(told, path=recording / "training.html", placement=placement)
            # A rule that ended the training is in the failure already.
            new = [one for one in summary_lines(told.diagnosis) if one not in str(failure)]
            lines = [*new, where]
        except Exception as error:  # why the training failed must not be lost
            lines = [f"it could not be diagnosed: {type(error).__name__}: {error}"]
        raise DarkroomError("\n  ".join([str(failure), *lines])) from failure
