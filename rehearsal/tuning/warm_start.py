"""What earlier tuning jobs found, for one that starts from them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.state import State
from rehearsal.tuning.jobs import TuningJob

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
