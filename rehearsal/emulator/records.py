"""What happened, for the report."""

import threading
from collections import Counter
from typing import Any

from rehearsal.emulator.calls import Call
from rehearsal.emulator.errors import AwsError


class Log:
    """Counts and notes, written by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.refusals: list[dict[str, Any]] = []

    def count(self, call: Call) -> None:
        """Count a call of somebody else's."""
        if not call.internal:
            with self._lock:
                self.calls[f"{call.service}:{call.operation}"] += 1

    def refused(self, call: Call, *, error: AwsError) -> None:
        """Note a request that was refused."""
        with self._lock:
            self.refusals.append(
                {"operation": call.operation, "code": error.code, "message": error.message}
            )
