"""The API of tuning jobs."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from rehearsal.emulator.errors import AwsError, in_use, invalid, not_executed, own_mistake
from rehearsal.emulator.operations import Answer, Request, cut, operation, page
from rehearsal.emulator.state import State, now
from rehearsal.emulator.tags import keep_tags
from rehearsal.jobs.request_checks import check_training_request
from rehearsal.jobs.training import launch, stop
from rehearsal.tuning.jobs import (
    Child,
    TuningJob,
    child_name,
    child_request,
    child_summary,
    describe_tuning,
    falls_behind_median,
    read_criteria,
    tuning_job_named,
    tuning_summary,
)
from rehearsal.tuning.space import Space, Values, read_space

# --- warm start ---
# What earlier tuning jobs found, for one that starts from them.

_ENDED = ("Completed", "Stopped", "Failed")


def read_parents(request: Mapping[str, Any], *, state: State) -> list[TuningJob]:
    """The parents of a WarmStartConfig. Raises AwsError with AWS's conditions for them."""
    config = request.get("WarmStartConfig")
    if not config:
        return []
    named = [
        each["HyperParameterTuningJobName"] for each in config["ParentHyperParameterTuningJobs"]
    ]
    parents = []
    for name in named:
        parent = state.kept(TuningJob).get(name)
        if parent is None:
            raise invalid(f"Parent hyperparameter tuning job {name!r} does not exist.")
        if parent.status not in _ENDED:
            raise invalid(f"Parent hyperparameter tuning job {name!r} has not ended yet.")
        _check_objective(request, parent=parent)
        parents.append(parent)
    return parents


def results_of_parents(parents: Sequence[TuningJob]) -> Iterator[tuple[Mapping[str, str], float]]:
    """(hyperparameters, objective) of all their jobs that have one."""
    for parent in parents:
        static = parent.definition.get("StaticHyperParameters", {})
        for child in parent.children:
            if child.objective is not None:
                yield {**static, **child.tuned}, child.objective


def _check_objective(request: Mapping[str, Any], *, parent: TuningJob) -> None:
    wanted = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    if dict(wanted) != dict(parent.objective):
        raise invalid(
            f"The objective metric {dict(wanted)!r} differs from that of the parent "
            f"{parent.name!r}, {dict(parent.objective)!r}; a warm start needs the same."
        )


# --- strategies ---
# Which values a tuning job tries next: SageMaker's four strategies.
#
# AWS does not publish its search; what stands in for it here is Optuna:
#
# Bayesian    TPESampler. AWS fits a Gaussian process; Optuna's sampler of that kind needs
# torch, which would cost the emulator seconds and a gigabyte.
# Random      RandomSampler
# Grid        every combination, in the order of the ranges
# Hyperband   TPESampler, and HyperbandPruner to stop jobs that fall behind

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


# --- execution ---
# The thread of a tuning job: it draws values, starts jobs, watches them and learns.

_SECONDS_BETWEEN_LOOKS = 0.05
_UNLIMITED = 10**9

ALL_FAILED = (
    "All training jobs failed. Please take a look at the training jobs failures to get more "
    "details."
)


@dataclass(frozen=True)
class _Trial:
    """A job that runs, and the point of the search that it tries."""

    child: Child
    candidate: Candidate


class TuningRun:
    """One tuning job while it runs."""

    def __init__(self, job: TuningJob, *, search: Search, state: State) -> None:
        self._job = job
        self._search = search
        self._state = state
        self._criteria = read_criteria(job.config)
        limits = job.config["ResourceLimits"]
        self._maximum_jobs = limits.get("MaxNumberOfTrainingJobs", _UNLIMITED)
        self._parallel = limits["MaxParallelTrainingJobs"]
        self._deadline = time.monotonic() + limits.get("MaxRuntimeInSeconds", _UNLIMITED)
        self._falls_behind = _early_stopping(job)
        self._running: list[_Trial] = []
        self._is_exhausted = False

    def run(self) -> None:
        """Until all jobs have ended, a criterion is met, time is up, or somebody stops it."""
        try:
            outcome = self._search_on()
            self._stop_running()
        except AwsError as error:
            self._stop_running()
            outcome, failure = "Failed", str(error)
        except Exception as error:
            with self._state.lock:
                self._job.finish("Failed", failure=own_mistake(error))
            raise
        else:
            failure = ALL_FAILED if self._all_failed() else ""
        with self._state.lock:
            self._job.finish("Failed" if failure else outcome, failure=failure)

    def _search_on(self) -> str:
        """The status in which the search ends."""
        while not self._state.ending.is_set():
            self._take_in_ended()
            if self._job.stop_requested.is_set() or time.monotonic() > self._deadline:
                return "Stopped"
            if self._is_fulfilled():
                return "Completed"
            self._start_more()
            if not self._running:
                return "Completed"
            self._stop_stragglers()
            self._job.stop_requested.wait(_SECONDS_BETWEEN_LOOKS)
        return "Stopped"

    def _start_more(self) -> None:
        while (
            len(self._running) < self._parallel
            and len(self._job.children) < self._maximum_jobs
            and not self._is_exhausted
        ):
            candidate = self._search.draw()
            if candidate is None:
                self._is_exhausted = True
                return
            self._running.append(_Trial(self._start(candidate), candidate))

    def _start(self, candidate: Candidate) -> Child:
        name = child_name(self._job.name, number=len(self._job.children) + 1)
        objective = self._job.objective["MetricName"]
        request = child_request(
            self._job.definition, name=name, tuned=candidate.values, objective=objective
        )
        training = launch(request, state=self._state, tuning_job_arn=self._job.arn)
        child = Child(training, tuned=candidate.values, objective_name=objective)
        with self._state.lock:
            self._job.children.append(child)
            self._job.modified = now()
        return child

    def _take_in_ended(self) -> None:
        for trial in [trial for trial in self._running if trial.child.job.done.is_set()]:
            self._running.remove(trial)
            stopped = trial.child.job.status == "Stopped"
            self._search.learn(trial.candidate, objective=trial.child.objective, stopped=stopped)
            with self._state.lock:
                self._job.finished.append(trial.child)
                self._job.modified = now()

    def _is_fulfilled(self) -> bool:
        criterion = self._criteria.fulfilled(self._job.objectives)
        if criterion == "ConvergenceDetected":
            self._job.converged = now()
        return criterion is not None

    def _stop_stragglers(self) -> None:
        in_progress = [t for t in self._running if t.child.job.status == "InProgress"]
        for trial in in_progress:
            behind = self._falls_behind(trial.child) or self._beyond_last_rung(trial)
            if behind or trial.candidate.falls_behind(trial.child.values):
                stop(trial.child.job, state=self._state)

    def _beyond_last_rung(self, trial: _Trial) -> bool:
        """Hyperband: a job that goes on after its MaxResource is ended."""
        if self._job.config["Strategy"] != "Hyperband":
            return False
        static = self._job.definition.get("StaticHyperParameters", {})
        return len(trial.child.values) > maximum_resource(self._job.config, static=static)

    def _stop_running(self) -> None:
        for trial in self._running:
            stop(trial.child.job, state=self._state)
        while self._running and not self._state.ending.is_set():
            self._take_in_ended()
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _all_failed(self) -> bool:
        children = self._job.children
        return bool(children) and all(child.job.status == "Failed" for child in children)


def start_tuning(job: TuningJob, *, state: State) -> None:
    """Begin the search beside the requests. Raises ValueError where it cannot be set up."""
    space = read_space(job.config.get("ParameterRanges", {}))
    static = job.definition.get("StaticHyperParameters", {})
    search = start_search(job.config, space=space, static=static)
    search.learn_from_parents(results_of_parents(job.parents))
    run = TuningRun(job, search=search, state=state)
    state.start(run.run, name=f"tuning {job.name}")


def _early_stopping(job: TuningJob) -> Callable[[Child], bool]:
    """Whether a job is to be stopped, by TrainingJobEarlyStoppingType."""
    if job.config.get("TrainingJobEarlyStoppingType", "Off") != "Auto":
        return lambda _: False

    def falls_behind(child: Child) -> bool:
        earlier = [other.values for other in job.finished if other.job.status != "Failed"]
        values = child.values
        return bool(values) and falls_behind_median(values, earlier=earlier, maximize=job.maximize)

    return falls_behind


# --- operations ---


@operation("CreateHyperParameterTuningJob")
def create_tuning_job(request: Request, *, state: State) -> Answer:
    """Start a search."""
    _refuse_unsupported(request, state=state)
    name = request["HyperParameterTuningJobName"]
    arn = state.arn("hyper-parameter-tuning-job", name)
    parents = read_parents(request, state=state)
    job = TuningJob(request, arn=arn, parents=parents)
    with state.lock:
        if name in state.kept(TuningJob):
            raise in_use(
                "Hyperparameter tuning job names must be unique within an AWS account and "
                f"region. A tuning job with this name already exists ({arn})."
            )
        state.kept(TuningJob)[name] = job
    try:
        start_tuning(job, state=state)
    except (ValueError, TypeError) as error:
        with state.lock:
            state.kept(TuningJob).pop(name, None)
        raise invalid(str(error)) from error
    keep_tags(arn, request.get("Tags", []), state=state)
    return {"HyperParameterTuningJobArn": arn}


@operation("DescribeHyperParameterTuningJob")
def describe_tuning_job(request: Request, *, state: State) -> Answer:
    """Show a tuning job."""
    job = tuning_job_named(request["HyperParameterTuningJobName"], state=state)
    return describe_tuning(job, state=state)


@operation("ListHyperParameterTuningJobs")
def list_tuning_jobs(request: Request, *, state: State) -> Answer:
    """Show all tuning jobs."""
    with state.lock:
        rows = [tuning_summary(job) for job in state.kept(TuningJob).values()]
    return page(
        rows,
        request=request,
        key="HyperParameterTuningJobSummaries",
        kind="HyperParameterTuningJob",
    )


@operation("StopHyperParameterTuningJob")
def stop_tuning_job(request: Request, *, state: State) -> Answer:
    """Stop a tuning job with all its training jobs; harmless where it has ended."""
    job = tuning_job_named(request["HyperParameterTuningJobName"], state=state)
    with state.lock:
        if job.status == "InProgress":
            job.status = "Stopping"
            job.stop_requested.set()
    return {}


@operation("DeleteHyperParameterTuningJob")
def delete_tuning_job(request: Request, *, state: State) -> Answer:
    """Forget a tuning job that has ended; its training jobs stay."""
    job = tuning_job_named(request["HyperParameterTuningJobName"], state=state)
    if job.status in ("InProgress", "Stopping"):
        raise in_use(f"Tuning job {job.name} is {job.status}; only an ended one can be deleted.")
    with state.lock:
        state.kept(TuningJob).pop(job.name, None)
        state.forget_tags(job.arn)
    return {}


@operation("ListTrainingJobsForHyperParameterTuningJob")
def list_children(request: Request, *, state: State) -> Answer:
    """Show the training jobs of a tuning job."""
    job = tuning_job_named(request["HyperParameterTuningJobName"], state=state)
    with state.lock:
        rows = [child_summary(child, state=state) for child in job.children]
    wanted = request.get("StatusEquals")
    rows = [row for row in rows if wanted in (None, row["TrainingJobStatus"])]
    key = _sort_key(request.get("SortBy", "Name"))
    rows = [row for row in rows if key(row) is not None]
    rows.sort(key=key, reverse=request.get("SortOrder") == "Descending")
    return cut(rows, request=request, key="TrainingJobSummaries")


def _sort_key(by: str) -> Any:  # noqa: ANN401
    """Jobs without an objective are left out where sorting is by it, as on AWS."""
    simple = {
        "Name": "TrainingJobName",
        "CreationTime": "CreationTime",
        "Status": "TrainingJobStatus",
    }
    if by in simple:
        return lambda row: row[simple[by]]
    return lambda row: row.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value")


def _refuse_unsupported(request: Request, *, state: State) -> None:
    if request.get("Autotune", {}).get("Mode") == "Enabled":
        raise not_executed("Autotune", why="how AWS chooses ranges is not known")
    for missing in _missing(request):
        raise missing
    name = child_name(request["HyperParameterTuningJobName"], number=1)
    child = child_request(request["TrainingJobDefinition"], name=name, tuned={}, objective="")
    check_training_request(child, state=state)


def _missing(request: Mapping[str, Any]) -> list[AwsError]:
    config, definition = (
        request["HyperParameterTuningJobConfig"],
        request.get("TrainingJobDefinition"),
    )
    problems = []
    if not definition:
        problems.append(invalid("TrainingJobDefinition is required."))
    if "HyperParameterTuningJobObjective" not in config:
        problems.append(invalid("HyperParameterTuningJobObjective is required."))
    return problems
