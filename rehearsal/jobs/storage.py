"""Objects of S3 to files, and files to objects."""

import gzip
import json
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from rehearsal.emulator.state import State
from rehearsal.jobs import job_files

# --- s3 uris ---
# s3://bucket/key, apart and together.


def split_uri(uri: str) -> tuple[str, str]:
    """(bucket, key) of s3://bucket/key. Raises ValueError where it is no such URI."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ValueError(f"{uri!r} is no s3:// URI")
    return bucket, key


# --- storage ---

_TRANSFERS_AT_ONCE = 8
_PART_BYTES = 64 << 20

NO_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
"""What is raised of content that is not packed by gzip, or is cut off."""


@dataclass(frozen=True)
class StoredObject:
    """One object of S3."""

    bucket: str
    key: str
    bytes: int


def listed(uri: str, *, state: State) -> list[StoredObject]:
    """All objects whose key begins as the URI does, in the order of their keys.

    Raises:
        botocore.exceptions.ClientError: such as NoSuchBucket.
    """
    bucket, prefix = split_uri(uri)
    pages = state.clients["s3"].get_paginator("list_objects_v2")
    return [
        StoredObject(bucket, entry["Key"], entry["Size"])
        for page in pages.paginate(Bucket=bucket, Prefix=prefix)
        for entry in page.get("Contents", ())
    ]


def of_manifest(uri: str, *, state: State) -> list[tuple[StoredObject, str]]:
    """The objects of a manifest, `[{"prefix": "s3://bucket/folder/"}, "a.jpg", …]`, by name.

    Raises:
        botocore.exceptions.ClientError: it is not there.
        ValueError: it is no such list, or leads out of its prefix.
    """
    content = json.loads(read(uri, state=state))
    head = content[0] if isinstance(content, list) and content else None
    if not isinstance(head, dict) or not isinstance(head.get("prefix"), str):
        raise ValueError(f'the manifest {uri} does not begin with [{{"prefix": …}}')
    if wrong := [n for n in content[1:] if not isinstance(n, str) or ".." in n.split("/")]:
        raise ValueError(f"the manifest {uri} names {wrong[0]!r}, which is no path below a prefix")
    bucket, folder = split_uri(head["prefix"])
    return [(StoredObject(bucket, folder + name, 0), name.lstrip("/")) for name in content[1:]]


def download(pairs: Sequence[tuple[StoredObject, Path]], *, state: State) -> None:
    """Write objects to files, several at once."""
    with ThreadPoolExecutor(_TRANSFERS_AT_ONCE) as pool:
        for _ in pool.map(lambda pair: _fetch(pair[0], path=pair[1], state=state), pairs):
            pass


def read(uri: str, *, state: State) -> bytes:
    """An object's content."""
    bucket, key = split_uri(uri)
    content: bytes = state.clients["s3"].get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def upload(file: BinaryIO, *, uri: str, state: State) -> None:
    """Write an open file to an object."""
    from boto3.s3.transfer import TransferConfig

    bucket, key = split_uri(uri)
    config = TransferConfig(
        multipart_threshold=4 * _PART_BYTES, multipart_chunksize=_PART_BYTES, use_threads=False
    )
    state.clients["s3"].upload_fileobj(file, bucket, key, Config=config)


def upload_folder(ml: Path, folder: str, *, uri: str, state: State) -> int:
    """Write all files below a folder of a job's to objects below a URI; how many there were."""
    files = [entry.path for entry in job_files.entries(ml, folder) if entry.is_file]
    base = uri.rstrip("/")

    def send(path: str) -> None:
        with job_files.opened(ml, f"{folder}/{path}") as file:
            upload(file, uri=f"{base}/{path}", state=state)

    with ThreadPoolExecutor(_TRANSFERS_AT_ONCE) as pool:
        for _ in pool.map(send, files):
            pass
    return len(files)


def place(key: str, *, prefix: str, folder: Path) -> Path | None:
    """Where SageMaker puts an object of a prefix; None for markers of folders.

    The path below the channel is what follows the prefix, as that of a folder; what follows
    its last slash, where the prefix is an object or only the beginning of a name. Keys with
    `..` are left out: they would lie outside.
    """
    base = prefix.rstrip("/")
    if not key.startswith(f"{base}/"):
        base = prefix.rpartition("/")[0]
    relative = key.removeprefix(base).lstrip("/")
    if not relative or relative.endswith("/") or ".." in PurePosixPath(relative).parts:
        return None
    return folder / relative


def _fetch(entry: StoredObject, *, path: Path, state: State) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    answer: Any = state.clients["s3"].get_object(Bucket=entry.bucket, Key=entry.key)
    with path.open("wb") as file:
        shutil.copyfileobj(answer["Body"], file, 1 << 20)
