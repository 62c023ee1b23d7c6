"""Models and endpoint configurations: kept as they were requested, described as AWS does."""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.state import State, now
from rehearsal.jobs import storage
from rehearsal.jobs.storage import split_uri

# --- model data ---
# A model from S3 into a container's folder.


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


# --- models ---


@dataclass
class Model:
    """What CreateModel was told."""

    name: str
    arn: str
    request: Mapping[str, Any]
    created: datetime = field(default_factory=now)

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """The definitions of its containers; the first is the primary one."""
        primary = self.request.get("PrimaryContainer")
        return [primary] if primary else list(self.request.get("Containers", []))

    def description(self) -> dict[str, Any]:
        """The answer of DescribeModel."""
        kept = {key: value for key, value in self.request.items() if key != "Tags"}
        return {
            "EnableNetworkIsolation": False,
            **kept,
            "ModelArn": self.arn,
            "CreationTime": self.created,
        }


@dataclass
class EndpointConfig:
    """What CreateEndpointConfig was told."""

    name: str
    arn: str
    request: Mapping[str, Any]
    created: datetime = field(default_factory=now)

    @property
    def variants(self) -> list[Mapping[str, Any]]:
        """Its production variants."""
        return list(self.request["ProductionVariants"])

    @property
    def capture(self) -> Mapping[str, Any]:
        """Its DataCaptureConfig; empty where nothing is captured."""
        return self.request.get("DataCaptureConfig") or {}

    def description(self) -> dict[str, Any]:
        """The answer of DescribeEndpointConfig; settings that were not given are left out."""
        kept = {key: value for key, value in self.request.items() if key != "Tags" and value}
        return {
            "EnableNetworkIsolation": False,
            **kept,
            "EndpointConfigArn": self.arn,
            "CreationTime": self.created,
        }


def model_named(name: str, *, state: State) -> Model:
    """Raises AwsError where there is none."""
    model = state.kept(Model).get(name)
    if model is None:
        raise invalid(f'Could not find model "{state.arn("model", name)}".')
    return model


def endpoint_config_named(name: str, *, state: State) -> EndpointConfig:
    """Raises AwsError where there is none."""
    config = state.kept(EndpointConfig).get(name)
    if config is None:
        arn = state.arn("endpoint-config", name)
        raise invalid(f'Could not find endpoint configuration "{arn}".')
    return config
