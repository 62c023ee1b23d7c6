"""Data capture: some of the requests and their answers, stored as SageMaker stores them."""

import base64
import hashlib
import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from darkroom.base.errors import UserError
from darkroom.base.files import atomic_path
from darkroom.serving.answers import CUSTOM_ATTRIBUTES
from darkroom.serving.invocations import OnExchange
from darkroom.serving.logs import EventLog
from darkroom.serving.monitoring import ServingMetrics
from darkroom.serving.multi_model import TARGET_MODEL
from darkroom.serving.settings import ServingSettings

# --- capture ---

_PENDING = 256
"""Exchanges that wait for the store; more are lost."""
_PENDING_BYTES = 64 * 2**20
"""Of their bodies, which are in memory."""
_FILE_BYTES = 8 * 2**20
_FILE_SECONDS = 10.0
"""A file is stored when it is so large, or so old."""
_SECONDS_TO_END = 10.0
_TEXT = {"application/json": "JSON", "text/csv": "CSV"}


class Store(Protocol):
    """Where files are put."""

    def put(self, name: str, content: bytes) -> None:
        """Store a file under a relative name, whole or not at all.

        Raises:
            Exception: it cannot be stored; the message says why, for the log.
        """


@dataclass(frozen=True)
class FolderStore:
    """A folder of this machine."""

    folder: Path

    def put(self, name: str, content: bytes) -> None:
        """Write a file that its owner alone can read: it holds people's photographs."""
        with atomic_path(self.folder / name) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_bytes(content)


@dataclass(frozen=True)
class Exchange:
    """A request that was answered."""

    request_id: str
    sent_type: str
    sent: bytes
    answer_type: str
    answer: bytes
    custom_attributes: str = ""
    target_model: str = ""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return len(self.sent) + len(self.answer)


class Capture:
    """Takes exchanges at once, and stores them in a thread of its own.

    Args:
        percent: of the requests that are stored, chosen by their ids.
        on_stored: told how many exchanges a stored file holds.
        on_lost: told how many were lost, and why.
    """

    def __init__(
        self,
        store: Store,
        *,
        percent: float,
        on_stored: Callable[[int], None],
        on_lost: Callable[[int, str], None],
        file_seconds: float = _FILE_SECONDS,
    ) -> None:
        self._store = store
        self._percent = percent
        self._on_stored, self._on_lost = on_stored, on_lost
        self._file_seconds = file_seconds
        self._pending: queue.Queue[Exchange | None] = queue.Queue(_PENDING)
        self._pending_bytes = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self._thread.start()

    def record(self, exchange: Exchange) -> None:
        """Keep an exchange, if it is among those that are stored."""
        if not is_sampled(exchange.request_id, percent=self._percent):
            return
        with self._lock:
            is_room = self._pending_bytes + exchange.size <= _PENDING_BYTES
            if is_room and not self._pending.full():  # nobody else puts
                self._pending_bytes += exchange.size
                self._pending.put_nowait(exchange)
                return
        self._on_lost(1, "the store is too slow")

    def close(self) -> None:
        """Store what is left; give up after ten seconds."""
        try:
            self._pending.put(None, timeout=_SECONDS_TO_END)
        except queue.Full:
            return
        self._thread.join(_SECONDS_TO_END)

    def _work(self) -> None:
        is_open = True
        while is_open:
            lines, is_open = self._collect()
            if lines:
                self._put(lines)

    def _collect(self) -> tuple[list[bytes], bool]:
        """Lines of one file, and whether more will come."""
        lines: list[bytes] = []
        size, end = 0, float("inf")
        while size < _FILE_BYTES:
            wait = max(0.0, end - time.monotonic())
            try:
                exchange = self._pending.get(timeout=None if wait == float("inf") else wait)
            except queue.Empty:
                return lines, True
            if exchange is None:
                return lines, False
            with self._lock:
                self._pending_bytes -= exchange.size
            lines.append(line_of(exchange))
            size += len(lines[-1])
            end = min(end, time.monotonic() + self._file_seconds)
        return lines, True

    def _put(self, lines: list[bytes]) -> None:
        moment = datetime.now(UTC)
        name = f"{moment:%Y/%m/%d/%H/%M-%S}-{uuid.uuid4().hex[:12]}.jsonl"
        try:
            self._store.put(name, b"".join(lines))
        except Exception as error:  # whatever a store raises: no request may suffer from it
            self._on_lost(len(lines), _reason(error))
        else:
            self._on_stored(len(lines))


def _reason(error: Exception) -> str:
    """The system's own words, without the name of a file that was to be written."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def is_sampled(request_id: str, *, percent: float) -> bool:
    """Whether a request is among the share that is stored: the same answer each time."""
    digest = hashlib.sha256(request_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100 < percent


def line_of(exchange: Exchange) -> bytes:
    """An exchange as a line of JSON."""
    metadata: dict[str, object] = {
        "eventId": str(uuid.uuid4()),
        "inferenceTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "inferenceId": exchange.request_id,
    }
    if exchange.custom_attributes:
        metadata["customAttributes"] = [exchange.custom_attributes]
    if exchange.target_model:
        metadata["targetModel"] = exchange.target_model
    data = {
        "endpointInput": _side("INPUT", content=exchange.sent, kind=exchange.sent_type),
        "endpointOutput": _side("OUTPUT", content=exchange.answer, kind=exchange.answer_type),
    }
    line = {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}
    return json.dumps(line).encode() + b"\n"


def _side(mode: str, *, content: bytes, kind: str) -> dict[str, str]:
    encoding = _TEXT.get(kind.partition(";")[0].strip(), "BASE64")
    try:
        text = base64.b64encode(content).decode() if encoding == "BASE64" else content.decode()
    except UnicodeDecodeError:  # JSON may be UTF-16
        encoding, text = "BASE64", base64.b64encode(content).decode()
    return {"observedContentType": kind, "mode": mode, "data": text, "encoding": encoding}


# --- capture by the settings ---
# Data capture as the settings of a server ask for it.


@contextmanager
def capturing(
    settings: ServingSettings, *, log: EventLog, metrics: ServingMetrics
) -> Iterator[OnExchange]:
    """What to tell of each exchange while the block runs; what is left is stored at its end.

    Raises:
        UserError: nothing can be stored where the settings say.
    """
    lost = 0  # since something was stored

    def note_loss(count: int, reason: str) -> None:
        nonlocal lost
        metrics.capture_lost.inc(count)
        if not lost:  # once: a store that is down is down for many requests
            log.write("capture_lost", reason=reason, place=settings.capture)
        lost += count

    def note_stored(count: int) -> None:
        nonlocal lost
        metrics.captured.inc(count)
        if lost:
            log.write("capture_resumed", lost=lost)
            lost = 0

    capture = Capture(
        store_at(settings.capture),
        percent=settings.capture_percent,
        on_stored=note_stored,
        on_lost=note_loss,
    )

    def on_exchange(request: Request, body: bytes, response: Response) -> None:
        capture.record(
            Exchange(
                request_id=request.scope["request_id"],
                sent_type=request.headers.get("content-type", "application/octet-stream"),
                sent=body,
                answer_type=response.headers["content-type"],
                answer=bytes(response.body),
                custom_attributes=request.headers.get(CUSTOM_ATTRIBUTES, ""),
                target_model=request.headers.get(TARGET_MODEL, ""),
            )
        )

    try:
        yield on_exchange
    finally:
        capture.close()


def store_at(place: str) -> Store:
    """The store that a folder or an s3:// prefix names.

    Raises:
        UserError: it cannot be written to, or boto3 is missing.
    """
    if not place.startswith("s3://"):
        return _folder(Path(place).expanduser())
    try:
        from darkroom.backends.storage.s3 import S3Store
    except ImportError as error:
        raise UserError(
            f"capture is {place!r}, but boto3 is not installed here: install darkroom[aws], "
            "or on SageMaker let the endpoint itself capture (sagemaker.hosting.capture_percent)"
        ) from error
    return S3Store.at(place)


def _folder(folder: Path) -> FolderStore:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"capture is {str(folder)!r}: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"capture is {str(folder)!r}, a folder that cannot be written to")
    return FolderStore(folder)
