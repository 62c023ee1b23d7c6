"""Train: the final training with the best values, and its packing as a bundle."""

from typing import Annotated

from zenml import step

from darkroom.config import Hyperparameters, TrackingConfig
from darkroom.config.placement import Placement
from darkroom.dataset import Dataset
from darkroom.model.bundle import Bundle
from darkroom.progress import terminal_progress
from darkroom.tracking.runs import active_run, training_run
from darkroom.tracking.trials import log_epoch
from materializers.bundle import BundleMaterializer
from steps.cache_policy import depends_on
from steps.chosen_backend import chosen_backend


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.backends.local",
        "darkroom.backends.weights",
        "darkroom.reports.figures",
        "darkroom.tracking.trials",
    ),
    output_materializers={"model_bundle": BundleMaterializer},
)
def train_model(
    dataset: Dataset,
    hyperparameters: Hyperparameters,
    tracking: TrackingConfig,
    placement: Placement,
) -> tuple[Annotated[Bundle, "model_bundle"], Annotated[str, "training_job"]]:
    """Train, keep the best epoch, export and check it. A killed training resumes.

    Args:
        dataset: cleaned.
        hyperparameters: everything that shapes the training.
        tracking: whether the machine is sampled meanwhile.
        placement: whether the training runs here or as a managed job, whose name is returned.
    """
    from darkroom.reports.figures import training_figure

    # Sampled is this machine, which is not the one that a managed job trains on.
    sampled = tracking.system_metrics and placement.jobs is None
    with training_run(system_metrics=sampled) as run:
        run.log(parameters=hyperparameters.model_dump())
        trained = chosen_backend(placement).train(
            dataset,
            hyperparameters=hyperparameters,
            on_epoch=lambda epoch: log_epoch(run, epoch),
            progress=terminal_progress(),
        )
    figure = training_figure(
        trained.history, best_epoch=trained.best_epoch, metric=hyperparameters.objective
    )
    active_run().figure(figure, file="figures/training.png")
    return trained.bundle, trained.job or ""
