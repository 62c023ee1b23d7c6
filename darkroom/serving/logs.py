"""Log lines of a server: one JSON object, or one line of text, for each event.

    {"time": "2026-11-26T21:00:00.123Z", "event": "request", "status": 200, "ms": 4.1, …}

Neither bodies nor queries, names of files or addresses that images were fetched from are
written: a log is no place for what users send.
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

LogFormat = Literal["json", "text", "none"]


class EventLog:
    """Writes events to a stream.

    Args:
        kind: "none" writes nothing.
    """

    def __init__(self, kind: LogFormat, *, stream: TextIO | None = None) -> None:
        self.kind = kind
        self._stream = stream

    def write(self, event: str, **fields: object) -> None:
        """One event."""
        if self.kind == "none":
            return
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self.kind == "json":
            line = json.dumps({"time": moment, "event": event, **fields}, default=str)
        else:
            line = f"{moment} {event} {_pairs(fields)}".rstrip()
        print(line, file=self._stream or sys.stdout, flush=True)


def _pairs(fields: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and text else repr(text)
