"""The thread of a tuning job: it draws values, starts jobs, watches them and learns."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from rehearsal.emulator.errors import AwsError, own_mistake
from rehearsal.emulator.state import State, now
from rehearsal.jobs.training import launch, stop
from rehearsal.tuning.child_requests import child_name, child_request
from rehearsal.tuning.criteria import falls_behind_median, read_criteria
from rehearsal.tuning.jobs import Child, TuningJob
from rehearsal.tuning.space import read_space
from rehearsal.tuning.strategies import Candidate, Search, maximum_resource, start_search
from rehearsal.tuning.warm_start import results_of_parents

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
