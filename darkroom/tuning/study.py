"""Optuna's side of tuning: the study on disk, how values are proposed and trials pruned."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from darkroom.config.grid import Dimension, dimensions, grid
from darkroom.config.tuning import FloatChoices, IntRange, TuningConfig
from darkroom.tuning.results import State, Trial, Value

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
    """The next trial and its values.

    The sampler is seeded for each trial by itself, so that a search that was killed
    proposes what it would have proposed, and not the first values once more.
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
