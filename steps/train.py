"""Train: the final training with the best values, and its packing as a bundle."""

from typing import Annotated

from zenml import step

from darkroom.backends.weights import local_weights
from darkroom.config import Hyperparameters, TrackingConfig
from darkroom.dataset import Dataset
from darkroom.files import workspace
from darkroom.model.bundle import Bundle
from darkroom.progress import terminal_progress
from darkroom.tracking.runs import active_run, training_run
from darkroom.tracking.trials import log_epoch
from materializers.bundle import BundleMaterializer
from steps.cache_policy import depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on(
        "darkroom.backends.local",
        "darkroom.backends.weights",
        "darkroom.reports.figures",
        "darkroom.tracking.trials",
    ),
    output_materializers=BundleMaterializer,
)
def train_model(
    dataset: Dataset, hyperparameters: Hyperparameters, tracking: TrackingConfig
) -> Annotated[Bundle, "model_bundle"]:
    """Train, keep the best epoch, export and check it. A killed training resumes.

    Args:
        dataset: cleaned.
        hyperparameters: everything that shapes the training.
        tracking: whether the machine is sampled meanwhile.
    """
    from darkroom.backends.local import train_bundle
    from darkroom.reports.figures import training_figure

    progress = terminal_progress()
    weights = local_weights(hyperparameters.weights, store=workspace() / "data", progress=progress)
    with training_run(system_metrics=tracking.system_metrics) as run:
        run.log(parameters=hyperparameters.model_dump())
        trained = train_bundle(
            dataset,
            hyperparameters=hyperparameters.replace(weights=weights),
            folder=workspace(),
            cache=workspace() / "cache",
            on_epoch=lambda epoch: log_epoch(run, epoch),
            progress=progress,
        )
    figure = training_figure(
        trained.history, best_epoch=trained.best_epoch, metric=hyperparameters.objective
    )
    active_run().figure(figure, file="figures/training.png")
    return trained.bundle
