"""Objects of S3 brought into a folder: concurrent, checked, and resumed after interruption."""

import hashlib
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from boto3.exceptions import RetriesExceededError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import (
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from filelock import FileLock

from darkroom.backends.s3_errors import s3_errors_explained
from darkroom.backends.s3_integrity import DamagedTransferError, check_file
from darkroom.backends.s3_listing import S3Listing, S3Object
from darkroom.errors import DarkroomError, UserError
from darkroom.progress import Progress, Task
from darkroom.sources.concurrency import map_concurrently

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Pause: TypeAlias = Callable[[float], None]
"""Waits so many seconds."""
sleep: Pause = time.sleep

_ATTEMPTS = 4
"""How often an object is asked for whose content breaks off or arrives damaged."""
_LARGE_BYTES = 64 * 2**20
"""From this size on an object is fetched in parts, several at a time."""
_COPY_BYTES = 1 << 18
_BROKEN_OFF = (
    DamagedTransferError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    RetriesExceededError,
)


class Download:
    """The objects of one listing on their way into a folder.

    They gather in `<folder>.partial`, which takes the folder's name when all are there.
    Each arrives in `<folder>.arriving` and moves over when it has been checked, so that
    whatever lies in the partial folder is whole.
    """

    def __init__(self, client: "S3Client", *, found: S3Listing, folder: Path, pause: Pause) -> None:
        self._client, self._found, self._folder, self._pause = client, found, folder, pause
        self._partial = folder.with_name(f"{folder.name}.partial")
        self._arriving = folder.with_name(f"{folder.name}.arriving")

    def run(self, *, threads: int, progress: Progress) -> None:
        """Fetch what is missing; nothing, if the folder is there."""
        if self._folder.is_dir():
            return
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._folder}.lock"):
            if not self._folder.is_dir():  # another process may have been faster
                self._fetch_all(threads=threads, progress=progress)

    def _fetch_all(self, *, threads: int, progress: Progress) -> None:
        self._arriving.mkdir(exist_ok=True)
        self._check_cases()
        with progress.task(f"Fetching {self._found.address}", total=self._found.size) as task:
            fetch = partial(self._fetch, task=task)
            for _ in map_concurrently(fetch, self._found.objects, threads=threads):
                pass
        self._partial.replace(self._folder)
        shutil.rmtree(self._arriving, ignore_errors=True)

    def _check_cases(self) -> None:
        """Refuse keys that differ by case alone where the disk does not tell cases apart."""
        probe = self._arriving / "Case"
        probe.touch()
        if not probe.with_name("cASE").exists():
            return
        firsts: dict[str, S3Object] = {}
        for item in self._found.objects:
            first = firsts.setdefault(item.path.casefold(), item)
            if first is not item:
                raise UserError(
                    f"{self._uri(first)!r} and {self._uri(item)!r} differ by case alone, which the "
                    f"disk of {str(self._folder.parent)!r} does not tell apart. Rename one of them."
                )

    def _fetch(self, item: S3Object, *, task: Task) -> None:
        target = self._partial / item.path
        if not (target.is_file() and target.stat().st_size == item.size):
            with s3_errors_explained(self._uri(item)):
                arrived = self._fetch_with_retries(item, task=task)
            target.parent.mkdir(parents=True, exist_ok=True)
            arrived.replace(target)
        if item.size < _LARGE_BYTES:
            task.advance(item.size)

    def _fetch_with_retries(self, item: S3Object, *, task: Task) -> Path:
        target = self._arriving / hashlib.sha256(item.key.encode()).hexdigest()
        in_parts = partial(self._fetch_in_parts, task=task)
        transfer = in_parts if item.size >= _LARGE_BYTES else self._fetch_whole
        for attempt in range(_ATTEMPTS):
            try:
                transfer(item, target=target)
                return target
            except _BROKEN_OFF as error:
                trouble = error
                self._pause(0.5 * 2**attempt)
        raise DarkroomError(
            f"{self._uri(item)!r} could not be fetched in {_ATTEMPTS} attempts: {trouble}. "
            "What has arrived is kept; run the same command again to go on."
        )

    def _fetch_whole(self, item: S3Object, *, target: Path) -> None:
        answer = self._client.get_object(
            Bucket=self._bucket, Key=item.key, IfMatch=item.etag, ChecksumMode="ENABLED"
        )
        with closing(answer["Body"]) as body, target.open("wb") as file:
            shutil.copyfileobj(body, file, _COPY_BYTES)
        check_file(target, size=item.size, answer=answer)

    def _fetch_in_parts(self, item: S3Object, *, target: Path, task: Task) -> None:
        answer = self._client.head_object(
            Bucket=self._bucket, Key=item.key, IfMatch=item.etag, ChecksumMode="ENABLED"
        )
        self._client.download_file(
            Bucket=self._bucket,
            Key=item.key,
            Filename=str(target),
            Callback=task.advance,
            Config=TransferConfig(max_concurrency=8),
        )
        check_file(target, size=item.size, answer=answer)

    def _uri(self, item: S3Object) -> str:
        return f"s3://{self._bucket}/{item.key}"

    @property
    def _bucket(self) -> str:
        return self._found.address.bucket
