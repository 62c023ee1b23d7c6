"""Everything the emulator knows: its settings, what was created, what runs.

A kind of thing is a dataclass, kept by name: `state.kept(TrainingJob)["name"]`. Threads
hold `state.lock` while they change one; Describe operations derive their answer from it.
Nothing here outlives the process, apart from what lies below `settings.folder`.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rehearsal.emulator.clients import Clients

if TYPE_CHECKING:
    from rehearsal.emulator.faults import Faults
    from rehearsal.emulator.records import Log


# --- processes ---
# Processes of jobs and endpoints, so that none outlives the emulator.


class Killable(Protocol):
    """Something with processes."""

    def kill(self) -> None:
        """End them at once; harmless where they have ended."""


class Processes:
    """All that runs now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Killable] = []
        self._ended = False

    def add(self, process: Killable) -> None:
        """Remember a process that was started; kill it where the emulator is ending."""
        with self._lock:
            self._running.append(process)
            ended = self._ended
        if ended:
            process.kill()

    def remove(self, process: Killable) -> None:
        """Forget a process that has ended."""
        with self._lock:
            if process in self._running:
                self._running.remove(process)

    def end(self) -> None:
        """Kill all, and all that are added later."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for process in running:
            process.kill()


# --- state ---

Kind = TypeVar("Kind")


def now() -> datetime:
    """The present, with a time zone."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Settings:
    """What the emulator was started with."""

    folder: Path
    """All that is written lies below."""
    images: Mapping[str, Path | None] = field(default_factory=dict)
    """Image URI → folder whose bin/ comes first on PATH; None: this Python environment is that
    image. No other image is executed."""
    region: str = "us-east-1"
    account: str = "123456789012"
    jobs_at_once: int = 0
    """Training and processing jobs that run at the same time; 0: no limit."""
    stop_grace_seconds: float = 120
    """Between SIGTERM and SIGKILL."""
    checkpoint_seconds: float = 2
    """Between copies of the checkpoints to S3."""
    startup_seconds: float = 60
    """Within which a serving container answers /ping; on AWS eight minutes."""
    time_scale: float = 1 / 300
    """What is slept of a second that is only waited: baking periods of an endpoint's update."""
    access_key: str = ""
    """With which requests have to be signed; empty: any will do."""
    services: tuple[str, ...] = ()
    """URLs on the loopback that jobs reach whose request names one of them."""
    sandboxed: bool | None = None
    """Run jobs in namespaces; None: where the machine allows it."""


class State:
    """One emulator's memory."""

    def __init__(
        self, settings: Settings, *, url: str, answer: Callable[[socket.socket], None]
    ) -> None:
        self.settings = settings
        self.url = url
        self.answer = answer
        """Takes a connection to the emulator that came by another way than its port."""
        self.lock = threading.RLock()
        self.clients = Clients(url, region=settings.region)
        self.processes = Processes()
        self._kept: dict[type, dict[str, Any]] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self.job_slots = threading.Semaphore(settings.jobs_at_once or 1_000_000)
        self.ending = threading.Event()
        self._cluster = threading.Lock()

    def kept(self, kind: type[Kind]) -> dict[str, Kind]:
        """All things of a kind by name, in the order of their creation."""
        with self.lock:
            return self._kept.setdefault(kind, {})

    def tags(self, arn: str) -> dict[str, str]:
        """The tags of one of our resources; moto keeps those of its own."""
        with self.lock:
            return self._tags.setdefault(arn, {})

    def has_tags(self, arn: str) -> bool:
        """Whether a resource is ours, and its tags with it."""
        with self.lock:
            return arn in self._tags

    def forget_tags(self, arn: str) -> None:
        """Of a resource that is deleted."""
        with self.lock:
            self._tags.pop(arn, None)

    def arn(self, kind: str, name: str) -> str:
        """`arn(kind="training-job", …)`: of something of SageMaker's."""
        return f"arn:aws:sagemaker:{self.settings.region}:{self.settings.account}:{kind}/{name}"

    def start(self, function: Callable[[], None], *, name: str) -> threading.Thread:
        """Run a function beside the requests, until it ends or the emulator does."""

        def run() -> None:
            try:
                function()
            except Exception:
                # When the emulator ends, nobody answers the calls that its threads make.
                if not self.ending.is_set():
                    raise

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    @contextmanager
    def cluster_slot(self, instances: int) -> Iterator[None]:
        """Hold the ports of loopback that the hosts of a cluster find each other by.

        Where all hosts share this machine's, jobs with several run one after the other.
        """
        with self._cluster if instances > 1 else nullcontext():
            yield

    def end(self) -> None:
        """Stop everything that runs, at once."""
        self.ending.set()
        self.processes.end()

    @cached_property
    def faults(self) -> "Faults":
        """What is made to go wrong."""
        from rehearsal.emulator.faults import Faults

        return Faults()

    @cached_property
    def log(self) -> "Log":
        """What happened, for the report."""
        from rehearsal.emulator.records import Log

        return Log()
