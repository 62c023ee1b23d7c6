"""What happened, for the report: GET /_rehearsal/records.

Each kind of thing tells its own records; a module registers how:

    @recorded
    def training_records(state: State) -> Iterable[Record]: …
"""

import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from darkroom.backends.sagemaker.costs import estimate
from rehearsal.emulator.calls import Call
from rehearsal.emulator.errors import AwsError

if TYPE_CHECKING:
    from rehearsal.emulator.state import State

_STARTS = {
    "training-job": "training",
    "warm-training-job": "warm_training",
    "processing-job": "processing",
    "transform-job": "transform",
    "endpoint": "endpoint",
    "serverless-endpoint": "serverless_endpoint",
}
STARTUP_SECONDS = {
    kind: sum(estimate.STARTUP_SECONDS[start]) / 2 for kind, start in _STARTS.items()
}
"""What AWS takes before the program starts, the middle of what `run.py check` estimates.
It is reported here and not slept."""

_NEVER_COVERED = (
    "IAM: no permission is evaluated",
    "images: programs run in this machine's environment, not in the named image",
    "hardware: no GPUs, and not the speed, memory or disks of the named instance types",
    "quotas of the account",
)


class Record(BaseModel):
    """One thing that exists or existed, and what would have run for it on AWS."""

    kind: str
    """As in ARNs: "training-job", "processing-job", "transform-job", "endpoint", "model", …"""
    name: str
    arn: str = ""
    status: str = ""
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    instance_type: str = ""
    instance_count: int = 0
    startup_seconds: float = 0
    """What AWS would have taken before the program starts; not slept here."""
    executed_seconds: float = 0
    """What it took here, the program and its data."""
    spot: bool = False
    failure: str = ""
    tags: dict[str, str] = {}
    details: dict[str, Any] = {}


class Refusal(BaseModel):
    """A request that was refused, by a rule or by a fault."""

    service: str
    operation: str
    code: str
    message: str


class Records(BaseModel):
    """All that the emulator can tell of itself."""

    region: str
    account: str
    sandboxed: bool
    """Whether jobs ran in namespaces of their own."""
    walls: list[str] = []
    """What stood between jobs and this machine."""
    walls_missing: list[str] = []
    """What of that could not be built here."""
    resources: list[Record]
    calls: dict[str, int]
    """Number of requests by "service:operation", without the emulator's own."""
    refused: list[Refusal]
    mistakes: list[str]
    """The rehearsal's own; there should be none."""
    faults: list[dict[str, Any]]
    """Those that are set."""
    faults_applied: list[dict[str, Any]]
    not_covered: list[str]
    without_effect: list[str] = []
    """Members of requests that were taken and do nothing here: members.py."""


Teller = Callable[["State"], Iterable[Record]]
_TELLERS: list[Teller] = []


def recorded(teller: Teller) -> Teller:
    """Register a function that tells the records of a kind."""
    _TELLERS.append(teller)
    return teller


def records(state: "State") -> Records:
    """What happened until now."""
    from rehearsal.jobs import sandbox
    from rehearsal.jobs.container import is_sandboxed

    built = sandbox.walls() if is_sandboxed(state) else frozenset()
    with state.lock:
        resources = [record for teller in _TELLERS for record in teller(state)]
    return Records(
        region=state.settings.region,
        account=state.settings.account,
        sandboxed=is_sandboxed(state),
        walls=[text for name, text in sandbox.WALLS.items() if name in built],
        walls_missing=[text for name, text in sandbox.WALLS.items() if name not in built],
        resources=sorted(resources, key=lambda record: record.created),
        calls=dict(sorted(state.log.calls.items())),
        refused=list(state.log.refusals),
        mistakes=list(state.log.mistakes),
        faults=state.faults.shown(),
        faults_applied=list(state.faults.applied),
        not_covered=[*_NEVER_COVERED, *state.log.gaps],
        without_effect=sorted(state.log.idle),
    )


class Log:
    """Counts and notes, written by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.refusals: list[Refusal] = []
        self.mistakes: list[str] = []
        self.gaps: list[str] = []
        self.idle: set[str] = set()

    def count(self, call: Call) -> None:
        """Count a call of somebody else's."""
        if not call.internal and not call.path.startswith("/_rehearsal/"):
            with self._lock:
                self.calls[f"{call.service}:{call.operation}"] += 1

    def refused(self, call: Call, *, error: AwsError) -> None:
        """Note a request that was refused."""
        refusal = Refusal(
            service=call.service,
            operation=call.operation,
            code=error.code,
            message=error.message,
        )
        with self._lock:
            self.refusals.append(refusal)

    def broke(self, call: Call, *, error: Exception) -> None:
        """Note a mistake of the emulator's own."""
        text = "".join(traceback.format_exception(error))
        with self._lock:
            self.mistakes.append(f"{call.service}:{call.operation}\n{text}")

    def without_effect(self, member: str) -> None:
        """Note a member of a request that does nothing here; told once."""
        with self._lock:
            self.idle.add(member)

    def not_covered(self, what: str) -> None:
        """Note something that a request asked for and that had no effect; told once."""
        with self._lock:
            if what not in self.gaps:
                self.gaps.append(what)
