"""Data capture as the settings of a server ask for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from darkroom.errors import UserError
from darkroom.serving.capture import Capture, Exchange, FolderStore, Store
from darkroom.serving.invocations import OnExchange
from darkroom.serving.logs import EventLog
from darkroom.serving.metrics import ServingMetrics
from darkroom.serving.models_api import TARGET_MODEL
from darkroom.serving.options import CUSTOM_ATTRIBUTES
from darkroom.serving.settings import ServingSettings


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
        from darkroom.backends.capture_store import S3Store
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
