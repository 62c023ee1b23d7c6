"""Objects of S3 brought into a folder: concurrent, checked, and resumed after interruption."""

import base64
import hashlib
import re
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from boto3.exceptions import RetriesExceededError
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import (
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from filelock import FileLock
from s3transfer.manager import TransferManager

from darkroom.backends.storage.access import s3_errors_explained
from darkroom.backends.storage.listing import S3Address, S3Listing, S3Object, list_objects
from darkroom.base.concurrency import map_concurrently
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import sha256_of
from darkroom.base.progress import Progress, Task
from darkroom.data.listing import FileEntry, list_folder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef


# --- s3 integrity ---
# Whether a file is what S3 holds: sizes and the checksums that an answer carries.
#
# Plain MD5 and SHA-1 serve here against damage in transit, as S3 uses them, not against forgery.

_CHUNK_BYTES = 1 << 20
_MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')


class DamagedTransferError(DarkroomError):
    """A file differs from what S3 says that it sent; another attempt may help."""


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


_CHECKSUMS: dict[str, Callable[[], _Digest]] = {
    "ChecksumSHA256": hashlib.sha256,
    "ChecksumSHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "ChecksumCRC32": _Crc32,
}
"""Header of an answer to what computes it; the others need libraries that are not here."""


def md5_of_etag(answer: Mapping[str, object]) -> bytes | None:
    """The MD5 that an ETag is, or None where it is something else.

    It is none for objects uploaded in parts and for those encrypted with KMS or customer
    keys (Amazon S3 API Reference, Object: ETag).
    """
    encryption = str(answer.get("ServerSideEncryption", "AES256"))
    found = _MD5_ETAG.fullmatch(str(answer.get("ETag", "")))
    if found is None or encryption != "AES256" or "SSECustomerAlgorithm" in answer:
        return None
    return bytes.fromhex(found.group(1))


def check_file(path: Path, *, size: int, answer: Mapping[str, object]) -> None:
    """Compare a fetched file with its size and with the checksums in S3's answer.

    Raises:
        DamagedTransferError: it differs.
    """
    if path.stat().st_size != size:
        raise DamagedTransferError(f"{path.stat().st_size:,} of {size:,} bytes arrived")
    expected = _expected(answer)
    digests = {name: _new(name) for name in expected}
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            for digest in digests.values():
                digest.update(chunk)
    for name, value in expected.items():
        if digests[name].digest() != value:
            raise DamagedTransferError(f"{name.removeprefix('Checksum')} differs")


def _expected(answer: Mapping[str, object]) -> dict[str, bytes]:
    """The checksums of the whole object; those over its parts say nothing about the file."""
    sent_in_parts = "-" in str(answer.get("ETag", ""))
    if sent_in_parts and answer.get("ChecksumType") != "FULL_OBJECT":
        return {}
    found = {
        name: base64.b64decode(value)
        for name in _CHECKSUMS
        if isinstance(value := answer.get(name), str)
    }
    md5 = md5_of_etag(answer)
    return found | ({"MD5": md5} if md5 else {})


def _new(name: str) -> _Digest:
    return _CHECKSUMS[name]() if name in _CHECKSUMS else hashlib.md5(usedforsecurity=False)


# --- s3 download ---

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


# --- s3 upload ---
# The files of a folder sent to S3: concurrent, and only what is not there yet.

_MAX_FILES = 10_000_000
_SHA256 = "darkroom-sha256"
"""Metadata of what was sent: an ETag of parts or of KMS encryption does not tell the content."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What an upload did."""

    sent: int
    """Files."""
    skipped: int
    """Files that lay there already with the same content."""
    size: int
    """Bytes that were sent."""


class Upload:
    """The files of a folder on their way to an S3 address."""

    def __init__(
        self,
        client: "S3Client",
        *,
        folder: Path,
        address: S3Address,
        encryption: Mapping[str, Any],
    ) -> None:
        self._client, self._folder, self._address = client, folder, address
        self._encryption = encryption
        # What jobs leave behind is uploaded, too: their links must not lead to other files.
        self._files = list_folder(folder, maximum_files=_MAX_FILES, follow_links=False).files
        if not self._files:
            raise UserError(f"folder {str(folder)!r} holds no files to upload.")

    def run(self, *, threads: int, progress: Progress) -> Uploaded:
        """Send what is not there yet."""
        there = {item["Key"]: item for item in list_objects(self._client, self._address)}
        total = sum(file.size for file in self._files)
        sent: list[int] = []
        with (
            create_transfer_manager(self._client, TransferConfig(max_concurrency=8)) as in_parts,
            progress.task(f"Uploading to {self._address}", total=total) as task,
        ):

            def send(file: FileEntry) -> tuple[FileEntry, bool]:
                known = there.get(self._key(file))
                return file, self._send_unless_there(file, known=known, in_parts=in_parts)

            for file, was_sent in map_concurrently(send, self._files, threads=threads):
                task.advance(file.size)
                if was_sent:
                    sent.append(file.size)
        return Uploaded(sent=len(sent), skipped=len(self._files) - len(sent), size=sum(sent))

    def _send_unless_there(
        self, file: FileEntry, *, known: "ObjectTypeDef | None", in_parts: TransferManager
    ) -> bool:
        with s3_errors_explained(f"s3://{self._address.bucket}/{self._key(file)}"):
            if known and known["Size"] == file.size and self._same_content(file, known=known):
                return False
            self._send(file, in_parts=in_parts)
            return True

    def _same_content(self, file: FileEntry, *, known: Mapping[str, object]) -> bool:
        path = self._folder / file.path
        with path.open("rb") as content:
            md5 = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False))
        if md5.digest() == md5_of_etag(known):
            return True
        head = self._client.head_object(Bucket=self._address.bucket, Key=self._key(file))
        return head["Metadata"].get(_SHA256) == sha256_of(path)

    def _send(self, file: FileEntry, *, in_parts: TransferManager) -> None:
        path, bucket, key = self._folder / file.path, self._address.bucket, self._key(file)
        metadata = {_SHA256: sha256_of(path)}
        if file.size >= _LARGE_BYTES:
            extra = {"Metadata": metadata, **self._encryption}
            in_parts.upload(str(path), bucket, key, extra_args=extra).result()
        else:
            with path.open("rb") as content:
                self._client.put_object(
                    Bucket=bucket, Key=key, Body=content, Metadata=metadata, **self._encryption
                )

    def _key(self, file: FileEntry) -> str:
        return f"{self._address.prefix}{file.path}"
