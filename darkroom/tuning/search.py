"""The search for hyperparameters: trials by Optuna, stored so that a killed search goes on.

    <folder>/tuning/<digest>/study.log   the study, Optuna's journal: text, append only
    <folder>/tuning/<digest>/trial-<n>   checkpoints of the trial under way, and of the best

The digest is of everything that decides the trials but not of when the search ends, so the
same search resumes where it was, or grows, and another one starts from nothing.
"""

import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.locks import alone
from darkroom.base.progress import SILENT, Progress, Task
from darkroom.base.values import digest_of
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging
from darkroom.config.tuning import (
    Dimension,
    FloatChoices,
    IntRange,
    TuningConfig,
    dimensions,
    grid,
    trials_wanted,
)
from darkroom.data.dataset import Dataset
from darkroom.tuning.results import State, Trial, TuningResult, Value, best_trial, tuning_result

if TYPE_CHECKING:
    from darkroom.training.loop import EpochMetrics, TrainingResult


# --- when to stop ---
# When a search has found enough. Imports neither torch nor Optuna.


def why_done(trials: Sequence[Trial], *, tuning: TuningConfig, seconds: float) -> str:
    """Why no further trial is needed; '' where one is.

    Args:
        trials: those that have ended, in their order.
        seconds: since this start of the search; the first trial is always made.
    """
    limit, patience, target = tuning.timeout_seconds, tuning.patience_trials, tuning.target_value
    best = best_trial(trials, direction=tuning.resolved_direction)
    if trials and limit and seconds >= limit:
        return f"{limit:g} s are over"
    if best is None:
        return ""
    if target is not None and _reaches(best.value, target=target, tuning=tuning):
        return f"{tuning.objective} {best.value:.4g} reaches {target:g}"
    if patience and len(trials) - 1 - best.number >= patience:
        return f"{patience} trials brought no better {tuning.objective}"
    return ""


def _reaches(value: float, *, target: float, tuning: TuningConfig) -> bool:
    return value >= target if tuning.resolved_direction == "maximize" else value <= target


# --- Optuna's study ---
# Optuna's side of tuning: the study on disk, how values are proposed and trials pruned.

_CONTINUES = "continues"
_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
"""Of trials that have ended."""


def open_study(path: Path, *, name: str, tuning: TuningConfig, epochs: int) -> optuna.Study:
    """The study stored at `path`, or a new one.

    Args:
        epochs: of a trial whose epochs are not searched.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=name,
            direction=tuning.resolved_direction,
            pruner=_pruner(tuning, epochs=epochs),
            load_if_exists=True,
        )


def resume_interrupted(study: optuna.Study) -> None:
    """Queue the values of trials that were under way when the search was killed."""
    queued = _continued(study.get_trials())
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        # Killed between these two calls, the next start must not queue it twice.
        if trial.number not in queued:
            study.enqueue_trial(trial.params, user_attrs={_CONTINUES: trial.number})
        study.tell(trial.number, state=TrialState.FAIL)


def trials_of(study: optuna.Study) -> list[Trial]:
    """The trials that have ended, without those that another one continued, numbered anew."""
    trials = study.get_trials()
    continued = _continued(trials)
    ended = [one for one in trials if one.state in _STATES and one.number not in continued]
    return [_trial(frozen, number=number) for number, frozen in enumerate(ended)]


def propose(
    study: optuna.Study, *, tuning: TuningConfig, seed: int, number: int
) -> tuple[optuna.Trial, dict[str, Value]]:
    """Choose the next trial and its values.

    The sampler is seeded for each trial by itself, so that a search that was killed
    proposes what it would have proposed, and not the first values once more.

    Args:
        study: of Optuna; values that are queued in it come first.
        tuning: strategy and search space.
        seed: of the training, the same for all trials.
        number: of the trial, from 0; its place in the grid, where the strategy is a grid.
    """
    study.sampler = sampler(
        tuning, seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    )
    if tuning.strategy == "grid" and not study.get_trials(states=(TrialState.WAITING,)):
        study.enqueue_trial(grid(tuning.search_space)[number])
    trial = study.ask()
    values = {
        name: _suggest(trial, name=name, dimension=dimension)
        for name, dimension in dimensions(tuning.search_space).items()
    }
    return trial, values


def sampler(tuning: TuningConfig, *, seed: int) -> optuna.samplers.BaseSampler:
    """How a strategy chooses values; a grid's are queued, so nothing is left to choose."""
    if tuning.strategy in ("random", "grid"):
        return optuna.samplers.RandomSampler(seed=seed)
    # Half of a short search may be random; Optuna's own default is 10 trials.
    random_trials = min(10, max(2, tuning.trials // 2))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=random_trials)


def _trial(frozen: FrozenTrial, *, number: int) -> Trial:
    state = _STATES[frozen.state]
    return Trial(
        number=number,
        values=frozen.params,
        state=state,
        objective=None if state == "failed" else frozen.value,
        epochs=frozen.user_attrs.get("epochs", 0),
        seconds=frozen.user_attrs.get("seconds", 0.0),
        error=frozen.user_attrs.get("error"),
    )


def _continued(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that were cut off and queued again."""
    return {trial.user_attrs[_CONTINUES] for trial in trials if _CONTINUES in trial.user_attrs}


def _pruner(tuning: TuningConfig, *, epochs: int) -> optuna.pruners.BasePruner:
    if tuning.strategy == "hyperband":
        searched = tuning.search_space.epochs
        return optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=searched.high if searched else epochs
        )
    if tuning.pruning == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=tuning.pruning_warmup_trials)


def _suggest(trial: optuna.Trial, *, name: str, dimension: Dimension) -> Value:
    if isinstance(dimension, FloatChoices):
        chosen: Value = trial.suggest_categorical(name, dimension.choices)
        return chosen
    if isinstance(dimension, IntRange):
        return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)


# --- search ---

_ENDS_IT = {"enabled", "trials", "timeout_seconds", "target_value", "patience_trials"}


class RunTrial(Protocol):
    """How a trial is trained: darkroom.training.loop.train, or a stand-in."""

    def __call__(
        self,
        dataset: Dataset,
        *,
        hyperparameters: Hyperparameters,
        folder: Path,
        cache: Path,
        debugging: Debugging,
        on_epoch: "Callable[[EpochMetrics], None] | None",
    ) -> "TrainingResult":
        """Train, and call `on_epoch` after each epoch; what that raises ends the training."""


def tune(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    tuning: TuningConfig,
    folder: Path,
    cache: Path,
    debugging: Debugging = NO_DEBUGGING,
    run_trial: RunTrial | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    on_epoch: "Callable[[int, EpochMetrics], None] | None" = None,
    progress: Progress = SILENT,
) -> TuningResult:
    """Try values one after the other; the same seed gives the same trials.

    Args:
        hyperparameters: the values that are not searched.
        folder: where the search is stored; shared between searches.
        cache: of decoded images.
        debugging: how trials are recorded: the best one's recording is the final training's.
        on_trial: called with each trial that ends now, not with those of an earlier start.
        on_epoch: called with a trial's number and each of its epochs.

    Raises:
        UserError: the data or the fixed hyperparameters cannot be trained on.
        DarkroomError: every trial failed.
    """
    place = search_folder(folder, dataset=dataset, hyperparameters=hyperparameters, tuning=tuning)
    epochs = hyperparameters.epochs
    # A trial that runs is one of a killed search only where no other process searches.
    with alone(place.with_suffix(".lock"), doing="makes the same search", progress=progress):
        study = open_study(place / "study.log", name=place.name, tuning=tuning, epochs=epochs)
        resume_interrupted(study)
        search = _Search(
            dataset=dataset,
            hyperparameters=hyperparameters,
            tuning=tuning,
            study=study,
            folder=place,
            cache=cache,
            debugging=debugging,
            run_trial=run_trial or _train,
            on_epoch=on_epoch,
        )
        _run_all(search, on_trial=on_trial, progress=progress)
        result = _result(search)
        _hand_over(search, folder=folder)
        return result


@dataclass(frozen=True)
class _Search:
    dataset: Dataset
    hyperparameters: Hyperparameters
    tuning: TuningConfig
    study: optuna.Study
    folder: Path
    cache: Path
    debugging: Debugging
    run_trial: RunTrial
    on_epoch: "Callable[[int, EpochMetrics], None] | None"

    def trials(self) -> list[Trial]:
        """The trials that have ended, numbered without gaps."""
        return trials_of(self.study)

    def best(self) -> Trial | None:
        """The best trial that ran to its end."""
        return best_trial(self.trials(), direction=self.tuning.resolved_direction)

    def trial_folder(self, number: int) -> Path:
        """Where a trial trains."""
        return self.folder / f"trial-{number}"

    def keep_best_folder(self) -> None:
        """Remove what the trials have written, the best one's apart."""
        best = self.best()
        for trial in self.trials():
            if trial != best:
                shutil.rmtree(self.trial_folder(trial.number), ignore_errors=True)


def _run_all(
    search: _Search, *, on_trial: Callable[[Trial], None] | None, progress: Progress
) -> None:
    started = time.monotonic()
    done, wanted = len(search.trials()), trials_wanted(search.tuning)
    with progress.task("tuning", total=wanted) as task:
        task.advance(done)
        for number in range(done, wanted):
            seconds = time.monotonic() - started
            if reason := why_done(search.trials(), tuning=search.tuning, seconds=seconds):
                progress.message(f"tuning: {reason}, after {number} trials")
                break
            shown = _run_one(search, number=number, task=task)
            trial = search.trials()[-1]
            # Of a trial that ended early, the rest is not waited for.
            task.advance(1 - shown, detail=trial.in_words(search.tuning.objective))
            if on_trial:
                on_trial(trial)


def _run_one(search: _Search, *, number: int, task: Task) -> float:
    """Propose values, train with them, and record what came of it.

    Returns:
        The share of it that was shown as progress, epoch by epoch.
    """
    trial, values = propose(
        search.study, tuning=search.tuning, seed=search.hyperparameters.seed, number=number
    )
    # The trials run in this process, whatever the final training does.
    hyperparameters = search.hyperparameters.replace(**values, processes=1)
    watch = _Watch(search, trial=trial, number=number, epochs=hyperparameters.epochs, task=task)
    try:
        result = search.run_trial(
            search.dataset,
            hyperparameters=hyperparameters,
            folder=search.trial_folder(number),
            cache=search.cache,
            debugging=search.debugging.of_trials,
            on_epoch=watch.epoch,
        )
    except optuna.TrialPruned:
        watch.end(TrialState.PRUNED)
    except UserError:
        raise
    except (DarkroomError, ArithmeticError, RuntimeError) as error:  # also out of memory
        watch.fail(str(error) or type(error).__name__)
    else:
        watch.complete(result.metrics[search.tuning.objective])
    search.keep_best_folder()
    return watch.shown


class _Watch:
    """Follows one trial: reports its epochs, prunes it, and records its end."""

    def __init__(
        self, search: _Search, *, trial: optuna.Trial, number: int, epochs: int, task: Task
    ) -> None:
        self._search, self._trial, self._number, self._task = search, trial, number, task
        self._objective, self._last_epoch = search.tuning.objective, epochs
        self._started = time.monotonic()
        self._epochs = 0
        self.shown = 0.0

    def epoch(self, epoch: "EpochMetrics") -> None:
        """Take note of an epoch.

        Raises:
            optuna.TrialPruned: it is worse than others were, and there is more to train.
        """
        self._epochs = epoch.epoch
        value = epoch.validation[self._objective]
        share = min(1 / self._last_epoch, 1 - self.shown)
        self.shown += share
        self._task.advance(
            share,
            detail=f"trial {self._number}, epoch {epoch.epoch}: loss {epoch.train_loss:.4f}, "
            f"{self._objective} {value:.4f}, {epoch.images_per_second:.0f} images/s",
        )
        if self._search.on_epoch:
            self._search.on_epoch(self._number, epoch)
        self._trial.report(value, epoch.epoch)
        if epoch.epoch < self._last_epoch and self._trial.should_prune():
            raise optuna.TrialPruned

    def complete(self, value: float) -> None:
        """Record the objective, if it is a number."""
        if math.isfinite(value):
            self.end(TrialState.COMPLETE, value=value)
        else:
            self.fail(f"{self._objective} is {value}")

    def fail(self, reason: str) -> None:
        """Record why there is no objective."""
        self._trial.set_user_attr("error", reason)
        self.end(TrialState.FAIL)

    def end(self, state: TrialState, *, value: float | None = None) -> None:
        """Record the trial's end."""
        self._trial.set_user_attr("epochs", self._epochs)
        self._trial.set_user_attr("seconds", time.monotonic() - self._started)
        self._search.study.tell(self._trial, value, state=state)


def _train(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    cache: Path,
    debugging: Debugging,
    on_epoch: "Callable[[EpochMetrics], None] | None",
) -> "TrainingResult":
    from darkroom.training.loop import train

    return train(
        dataset,
        hyperparameters=hyperparameters,
        folder=folder,
        cache=cache,
        debugging=debugging,
        on_epoch=on_epoch,
    )


def _result(search: _Search) -> TuningResult:
    tuning, trials, best = search.tuning, search.trials(), search.best()
    if best is None:
        reasons = sorted({trial.error or trial.state for trial in trials})
        # The next start searches anew instead of finding nothing but failures again.
        shutil.rmtree(search.folder, ignore_errors=True)
        raise DarkroomError(
            f"all {len(trials)} trials failed: {'; '.join(reasons)}. Narrow "
            "tuning.search_space, such as a lower learning_rate, or check the data"
        )
    return tuning_result(trials, best=best, tuning=tuning)


def _hand_over(search: _Search, *, folder: Path) -> None:
    """Leave the best trial where the final training looks for a checkpoint.

    The final training repeats the best trial number for number, so it finds itself done.
    """
    from darkroom.training.checkpoints import training_folder

    best = search.best()
    if best is None or not search.trial_folder(best.number).is_dir():
        return
    hyperparameters = search.hyperparameters.replace(**best.values)
    target = training_folder(folder, dataset=search.dataset, hyperparameters=hyperparameters)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        search.trial_folder(best.number).rename(target)


def search_folder(
    folder: Path, *, dataset: Dataset, hyperparameters: Hyperparameters, tuning: TuningConfig
) -> Path:
    """Where a search works below `folder`: a place for each data set, hyperparameters, tuning.

    Args:
        folder: the base folder.
        dataset: counts by its fingerprint, not by where it lies.
        hyperparameters: as configured; of initial weights in a file, its content counts.
        tuning: counts but for what only says when the search ends, such as the number of trials.
    """
    from darkroom.training.checkpoints import weights_digests

    content = {
        "data": dataset.fingerprint,
        "hyperparameters": hyperparameters.model_dump(),
        "tuning": tuning.model_dump(exclude=_ENDS_IT),
    }
    if digests := weights_digests(hyperparameters.weights):
        content["weights"] = digests
    return folder / "tuning" / digest_of(content)[:16]
