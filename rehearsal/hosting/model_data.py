"""A model from S3 into a container's folder."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.emulator.state import State
from rehearsal.jobs import storage
from rehearsal.s3_uris import split_uri


class ModelDataError(Exception):
    """There is no model where the definition says, or it cannot be unpacked."""


def fetch_model(definition: Mapping[str, Any], *, folder: Path, state: State) -> None:
    """Fill `folder` with the model of a container definition; nothing where it names none.

    Raises ModelDataError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uri = model_uri(definition)
    if not uri:
        return
    source = definition.get("ModelDataSource", {}).get("S3DataSource", {})
    fetch = _fetch_files if source.get("CompressionType") == "None" else fetch_archive
    try:
        fetch(uri, folder=folder, state=state)
    except ClientError as error:
        raise _inaccessible(uri) from error


def model_uri(definition: Mapping[str, Any]) -> str:
    """Where the model of a container definition lies; empty where it names none."""
    source = definition.get("ModelDataSource", {}).get("S3DataSource", {})
    return str(source.get("S3Uri") or definition.get("ModelDataUrl") or "")


def fetch_archive(uri: str, *, folder: Path, state: State) -> None:
    """Unpack a model.tar.gz. Raises ModelDataError, ClientError."""
    bucket, key = split_uri(uri)
    with TemporaryFile() as file:
        state.clients["s3"].download_fileobj(bucket, key, file)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:gz") as archive:
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ModelDataError(
                f'Failed to extract model data archive from URL "{uri}". Please ensure that the '
                "object located at the URL is a valid tar.gz archive."
            ) from error


def model_data_exists(definition: Mapping[str, Any], *, state: State) -> bool:
    """Whether anything lies where a container definition says; AWS looks at CreateModel."""
    uri = model_uri(definition)
    if not uri or definition.get("Mode") == "MultiModel":
        return True
    try:
        return bool(storage.listed(uri, state=state))
    except ClientError:
        return False


def _fetch_files(uri: str, *, folder: Path, state: State) -> None:
    """Objects below a prefix, uncompressed, by their keys below it."""
    found = storage.listed(uri, state=state)
    _, prefix = split_uri(uri)
    places = [storage.place(each.key, prefix=prefix, folder=folder) for each in found]
    pairs = [(each, path) for each, path in zip(found, places, strict=True) if path is not None]
    if not pairs:
        raise _inaccessible(uri)
    storage.download(pairs, state=state)


def _inaccessible(uri: str) -> ModelDataError:
    return ModelDataError(
        f"Could not access model data at {uri}. Please ensure that the role can read it, and that "
        "the object is located in the endpoint's region."
    )
