"""Which values a tuning job tries next: SageMaker's four strategies.

AWS does not publish its search; what stands in for it here is Optuna:

    Bayesian    TPESampler. AWS fits a Gaussian process; Optuna's sampler of that kind needs
                torch, which would cost the emulator seconds and a gigabyte.
    Random      RandomSampler
    Grid        every combination, in the order of the ranges
    Hyperband   TPESampler, and HyperbandPruner to stop jobs that fall behind
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from rehearsal.tuning.space import Space, Values

_REDUCTION = 3
"""Of Hyperband: one job in three goes on to the next rung (Li et al. 2018, section 3)."""

_EPOCH_NAMES = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
"""The static hyperparameters from which SageMaker infers Hyperband's MaxResource."""


class Candidate:
    """One point of the search while its job runs."""

    def __init__(self, values: Values, *, trial: optuna.trial.Trial | None) -> None:
        self.values = values
        self._trial = trial
        self._reported = 0

    def falls_behind(self, metrics: Sequence[float]) -> bool:
        """Whether Hyperband would stop the job that has emitted these values so far."""
        if self._trial is None:
            return False
        while self._reported < len(metrics):
            self._reported += 1
            self._trial.report(metrics[self._reported - 1], step=self._reported)
            if self._trial.should_prune():
                return True
        return False


class Search:
    """Draws the hyperparameters of one job after another, and learns from how they do."""

    def __init__(self, study: optuna.Study, *, space: Space, grid: list[Values] | None) -> None:
        self._study = study
        self._space = space
        self._grid = grid

    def draw(self) -> Candidate | None:
        """What to try next; None where a grid is exhausted."""
        if self._grid is not None:
            return Candidate(self._grid.pop(0), trial=None) if self._grid else None
        trial = self._study.ask(self._space.distributions)
        return Candidate(self._space.outward(trial.params), trial=trial)

    def learn(self, candidate: Candidate, *, objective: float | None, stopped: bool) -> None:
        """Take in how a job ended; `objective` None: it emitted none, or failed."""
        trial = candidate._trial
        if trial is None:
            return
        if objective is None:
            self._study.tell(trial, state=TrialState.FAIL)
        elif stopped:
            trial.report(objective, step=candidate._reported + 1)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, objective)

    def learn_from_parents(self, jobs: Iterable[tuple[Mapping[str, str], float]]) -> int:
        """Warm start: take in (hyperparameters, objective) of earlier jobs.

        Those outside the ranges of today are left out. Returns how many were taken in.
        """
        taken = 0
        for values, objective in jobs:
            try:
                point = self._space.inward(values)
            except (KeyError, ValueError):
                continue
            self._study.add_trial(
                optuna.trial.create_trial(
                    params=point, distributions=self._space.distributions, value=objective
                )
            )
            taken += 1
        return taken


def start_search(config: Mapping[str, Any], *, space: Space, static: Mapping[str, str]) -> Search:
    """The search that a HyperParameterTuningJobConfig asks for.

    static: StaticHyperParameters, from which Hyperband may infer its MaxResource.
    Raises ValueError where it cannot.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    strategy, seed = config["Strategy"], config.get("RandomSeed")
    direction = config.get("HyperParameterTuningJobObjective", {}).get("Type", "Maximize")
    study = optuna.create_study(
        direction="maximize" if direction == "Maximize" else "minimize",
        sampler=_sampler(strategy, seed=seed),
        pruner=_pruner(config, static=static),
    )
    return Search(study, space=space, grid=space.grid() if strategy == "Grid" else None)


def maximum_resource(config: Mapping[str, Any], *, static: Mapping[str, str]) -> int:
    """Hyperband's MaxResource: as given, or the number of epochs that the jobs are told.

    Raises ValueError where neither is there.
    """
    given = _hyperband(config).get("MaxResource")
    if given is not None:
        return int(given)
    for name in _EPOCH_NAMES:
        text = static.get(name, "").strip('"')
        if text.isdigit():
            return int(text)
    raise ValueError(
        "Hyperband needs MaxResource: give HyperbandStrategyConfig.MaxResource, or one of the "
        f"static hyperparameters {', '.join(_EPOCH_NAMES)}."
    )


def _sampler(strategy: str, *, seed: int | None) -> BaseSampler:
    return RandomSampler(seed=seed) if strategy == "Random" else TPESampler(seed=seed)


def _pruner(config: Mapping[str, Any], *, static: Mapping[str, str]) -> BasePruner:
    if config["Strategy"] != "Hyperband":
        return NopPruner()
    return HyperbandPruner(
        min_resource=_hyperband(config).get("MinResource", 1),
        max_resource=maximum_resource(config, static=static),
        reduction_factor=_REDUCTION,
    )


def _hyperband(config: Mapping[str, Any]) -> dict[str, Any]:
    settings = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    return dict(settings)
