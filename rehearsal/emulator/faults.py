"""What is made to go wrong, on demand."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rehearsal.emulator.calls import Call

if TYPE_CHECKING:
    from rehearsal.jobs.training_job import TrainingJob


class Faults:
    """The faults that are set."""

    def strike(self, call: Call) -> None:
        """Fail or delay this call, where a fault says so."""

    def capacity(self, job: str) -> str:
        """Why a training job gets no machines; empty where it does."""
        return ""

    def dead_container(self, job: str) -> bool:
        """Whether a container dies before its program starts."""
        return False

    def spot_interruption(self, job: "TrainingJob") -> Callable[[float], bool] | None:
        """Tells, by the seconds since the start, whether a spot machine is taken away now."""
        return None
