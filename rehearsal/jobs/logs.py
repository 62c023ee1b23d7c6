"""Where the output of containers goes: a file, and CloudWatch logs, while they run."""

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

from rehearsal.emulator.state import State

_SECONDS_BETWEEN_SENDS = 0.4
_EVENTS_AT_ONCE = 2000


class LogStream:
    """One stream of a log group; lines may come from several threads.

    Args:
        group: such as /aws/sagemaker/TrainingJobs.
        stream: such as <job>/algo-1-<epoch seconds>.
        path: a file that gets the same lines.
    """

    def __init__(self, *, group: str, stream: str, path: Path, state: State) -> None:
        self.group, self.stream = group, stream
        self.latest = 0
        """When the last line came, in ms since the epoch."""
        self._logs: Any = state.clients["logs"]
        self._lock = threading.Lock()
        self._waiting: list[dict[str, Any]] = []
        self._created = False
        self._closed = threading.Event()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._sender = state.start(self._send_regularly, name=f"log {stream}")

    def write(self, line: str, *, after: int = 0) -> None:
        """Add a line, which came later than `after`, in ms since the epoch."""
        with self._lock:
            self.latest = max(int(time.time() * 1000), after + 1)
            event = {"timestamp": self.latest, "message": line}
            if not self._file.closed:
                self._file.write(f"{line}\n")
            # CloudWatch takes no empty events.
            if line:
                self._waiting.append(event)

    def close(self) -> None:
        """Send what is left."""
        self._closed.set()
        self._sender.join(timeout=30)
        with self._lock:
            self._file.close()

    def _send_regularly(self) -> None:
        while not self._closed.wait(_SECONDS_BETWEEN_SENDS):
            self._send()
        self._send()

    def _send(self) -> None:
        with self._lock:
            events, self._waiting = self._waiting, []
        if not events:
            return
        # The emulator may be ending: then nobody answers, and nobody will read them.
        with contextlib.suppress(Exception):
            self._create()
            for start in range(0, len(events), _EVENTS_AT_ONCE):
                self._logs.put_log_events(
                    logGroupName=self.group,
                    logStreamName=self.stream,
                    logEvents=events[start : start + _EVENTS_AT_ONCE],
                )

    def _create(self) -> None:
        if self._created:
            return
        with contextlib.suppress(self._logs.exceptions.ResourceAlreadyExistsException):
            self._logs.create_log_group(logGroupName=self.group)
        with contextlib.suppress(self._logs.exceptions.ResourceAlreadyExistsException):
            self._logs.create_log_stream(logGroupName=self.group, logStreamName=self.stream)
        self._created = True
