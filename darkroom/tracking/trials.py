"""The trials of a search, each as a nested run."""

from collections.abc import Sequence

from darkroom.tracking.runs import RunLog
from darkroom.training.history import EpochMetrics
from darkroom.tuning.results import Trial


def log_epoch(run: RunLog, epoch: EpochMetrics) -> None:
    """Log an epoch's metrics at its number."""
    run.log(
        metrics={
            "train_loss": epoch.train_loss,
            "train_accuracy": epoch.train_accuracy,
            "epoch_learning_rate": epoch.learning_rate,
            "images_per_second": epoch.images_per_second,
            **{f"validation_{name}": value for name, value in epoch.validation.items()},
        },
        step=epoch.epoch,
    )


class TrialLog:
    """Opens a nested run at a trial's first epoch and ends it with the trial."""

    def __init__(self, parent: RunLog) -> None:
        self._parent = parent
        self._runs: dict[int, RunLog] = {}
        self._finished: set[int] = set()

    def epoch(self, number: int, epoch: EpochMetrics) -> None:
        """An epoch of trial `number` ended."""
        log_epoch(self._run(number), epoch)

    def finish(self, trial: Trial) -> None:
        """A trial ended: completed, pruned or failed."""
        run = self._run(trial.number)
        run.log(
            parameters=trial.values,
            metrics={} if trial.objective is None else {"objective": trial.objective},
            tags={"trial.state": trial.state},
        )
        run.finish(failed=trial.state == "failed")
        self._finished.add(trial.number)

    def add_missing(self, trials: Sequence[Trial]) -> None:
        """Log the trials that an interrupted search had done before this one went on."""
        for trial in trials:
            if trial.number not in self._finished:
                self.finish(trial)

    def _run(self, number: int) -> RunLog:
        if number not in self._runs:
            self._runs[number] = self._parent.nested(f"trial-{number}", kind="trial")
        return self._runs[number]
