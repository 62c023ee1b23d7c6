"""The input data of a job: from S3 to /opt/ml/input/data/<channel>.

File mode copies. FastFile would stream while it is read; here it copies as well, which the
program cannot tell. Objects of an S3Prefix are put below the channel by what follows the
prefix's last slash; those of a manifest by what follows its prefix. With ShardedByS3Key
each host gets every n-th object.
"""

import gzip
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.emulator.state import State
from rehearsal.jobs import storage
from rehearsal.jobs.failures import JobFailure
from rehearsal.s3_uris import split_uri

Assignment = tuple[storage.StoredObject, str]
"""An object, and its path below the channel."""

_FAILED = "ClientError: Data download failed"


def fetch_channel(
    channel: Mapping[str, Any], *, folders: Sequence[Path], role: str, state: State
) -> None:
    """Bring one channel of InputDataConfig to all hosts.

    Args:
        folders: the channel's folder of each host.

    Raises:
        JobFailure: there is nothing at that place, as SageMaker says it.
    """
    source = channel["DataSource"]["S3DataSource"]
    found = _objects(source, role=role, state=state)
    sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        share = found[number :: len(folders)] if sharded else found
        try:
            storage.download([(entry, folder / path) for entry, path in share], state=state)
        except ClientError as error:
            key = error.response["Error"].get("Key", "an object")
            raise JobFailure(f"{_FAILED}: {error}: {key!r} of {source['S3Uri']!r}") from error
        except OSError as error:
            raise JobFailure(_no_file(error, uri=source["S3Uri"])) from error
        if channel.get("CompressionType") == "Gzip":
            try:
                _unpack(folder, share)
            except storage.NO_GZIP as error:
                where = f"not all under S3 URL {source['S3Uri']!r} is packed by gzip"
                raise JobFailure(f"{_FAILED}: {where}: {error}") from error


def _objects(source: Mapping[str, Any], *, role: str, state: State) -> list[Assignment]:
    uri = source["S3Uri"]
    try:
        if source["S3DataType"] == "ManifestFile":
            found = storage.of_manifest(uri, state=state)
        else:
            found = _of_prefix(uri, state=state)
    except (ClientError, ValueError) as error:
        raise JobFailure(_nothing_there(uri, role=role, why=f" ({error})", state=state)) from error
    if not found:
        raise JobFailure(_nothing_there(uri, role=role, why="", state=state))
    return found


def _of_prefix(uri: str, *, state: State) -> list[Assignment]:
    _, prefix = split_uri(uri)
    pairs = [
        (entry, storage.place(entry.key, prefix=prefix, folder=Path()))
        for entry in storage.listed(uri, state=state)
    ]
    return [(entry, path.as_posix()) for entry, path in pairs if path is not None]


def _unpack(folder: Path, share: Sequence[Assignment]) -> None:
    """CompressionType Gzip: each file is decompressed, and keeps its name without .gz."""
    for _, path in share:
        packed = folder / path
        target = packed.with_suffix("") if packed.suffix == ".gz" else packed
        scratch = packed.with_name(f"{packed.name}.unpacked")
        with gzip.open(packed) as source, scratch.open("wb") as file:
            shutil.copyfileobj(source, file)
        packed.unlink()
        scratch.replace(target)


def _no_file(error: OSError, *, uri: str) -> str:
    """A key that no file can have: as folder and file at once, or too long."""
    return (
        f'ClientError: Data download failed: the objects under S3 URL "{uri}" cannot be written '
        f"as files: {error.strerror}: {Path(str(error.filename)).name!r}. No key may be the "
        "beginning of another up to a '/', and no part of one longer than 255 bytes."
    )


def _nothing_there(uri: str, *, role: str, why: str, state: State) -> str:
    bucket, _ = split_uri(uri)
    return (
        f'ClientError: Data download failed: No S3 objects found under S3 URL "{uri}" given in '
        "input data source. Please ensure that the bucket exists in the selected region "
        f"({state.settings.region}), that objects exist under that S3 prefix, and that the role "
        f'"{role}" has "s3:ListBucket" permissions on bucket "{bucket}".{why}'
    )
