"""The files of a folder sent to S3: concurrent, and only what is not there yet."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from s3transfer.manager import TransferManager

from darkroom.backends.s3_errors import s3_errors_explained
from darkroom.backends.s3_integrity import md5_of_etag
from darkroom.backends.s3_listing import S3Address, list_objects
from darkroom.errors import UserError
from darkroom.files import sha256_of
from darkroom.progress import Progress
from darkroom.sources.concurrency import map_concurrently
from darkroom.sources.listing import FileEntry, list_folder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

_LARGE_BYTES = 64 * 2**20
"""From this size on a file is sent in parts, several at a time."""
_MOST_FILES = 10_000_000
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
        self._files = list_folder(folder, maximum_files=_MOST_FILES, follow_links=False).files
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
