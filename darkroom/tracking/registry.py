"""MLflow's model registry."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema
from pydantic import BaseModel

from darkroom.base.errors import UserError
from darkroom.base.files import atomic_path, link_or_copy
from darkroom.models.bundle import FILES, METADATA_FILE, Bundle

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>[0-9]+|latest)|@(?P<alias>[^/@]+))?")
_COLUMNS = ("class", "probability")
"""Of what the model answers, beside one of probabilities a class."""
PASSED_ALIAS = "approved"
"""The version of the last run that passed the gate."""
_TAKEN = "RESOURCE_ALREADY_EXISTS"
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_PACKAGE = Path(__file__).resolve().parent.parent


class RegisteredModel(BaseModel):
    """A version in the model registry."""

    name: str
    version: str
    uri: str
    """models:/NAME/VERSION, as MLflow's own commands take it."""
    package: str | None = None
    """ARN of its model package in SageMaker's registry."""


@dataclass(frozen=True)
class FoundVersion:
    """A version of a registered model."""

    uri: str
    """models:/NAME/VERSION."""
    bundle_version: str
    """Of the bundle; '' where it was registered by somebody else."""
    tracking_uri: str

    def download(self) -> Path:
        """The bundle's folder, fetched where the registry is elsewhere.

        Raises:
            UserError: it is no bundle of Darkroom's, or its files are gone.
        """
        try:
            fetched = mlflow.artifacts.download_artifacts(
                artifact_uri=self.uri, tracking_uri=self.tracking_uri
            )
        except (MlflowException, OSError) as error:
            raise UserError(f"the files of {self.uri} cannot be had: {error}") from error
        bundle = next(Path(fetched).rglob(METADATA_FILE), None)
        if bundle is None:
            raise UserError(f"{self.uri} is no model of Darkroom's: it holds no {METADATA_FILE}")
        return bundle.parent


def find_registered(uri: str, *, database: Path) -> FoundVersion:
    """Look up models:/NAME/VERSION, models:/NAME@ALIAS, or models:/NAME for the newest version.

    Args:
        database: of the local registry; $MLFLOW_TRACKING_URI names another.

    Raises:
        UserError: no such model, version or alias.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise UserError(
            f"{uri!r} names no registered model: models:/NAME/VERSION, models:/NAME@ALIAS or "
            "models:/NAME for its newest version"
        )
    elsewhere = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not elsewhere and not database.is_file():
        raise UserError(f"{uri!r}: there is no model registry yet; no run has registered a model")
    tracking_uri = elsewhere or f"sqlite:///{database}"
    client = MlflowClient(tracking_uri)
    name = parts["name"]
    try:
        versions = client.search_model_versions(f"name = '{name.replace(chr(39), '')}'")
        if not versions:
            names = sorted(model.name for model in client.search_registered_models())
            raise UserError(f"{uri!r}: no such model; registered are {', '.join(names) or 'none'}")
        found = _version_of(parts, client=client, versions=versions)
    except MlflowException as error:
        known = ", ".join(str(each.version) for each in versions)
        raise UserError(f"{uri!r}: {error.message}; versions: {known}") from error
    return FoundVersion(
        uri=f"models:/{name}/{found.version}",
        bundle_version=found.tags.get("bundle_version", ""),
        tracking_uri=tracking_uri,
    )


def _version_of(
    parts: re.Match[str], *, client: MlflowClient, versions: list[ModelVersion]
) -> ModelVersion:
    if parts["alias"]:
        return client.get_model_version_by_alias(parts["name"], parts["alias"])
    if parts["version"] in (None, "latest"):
        return max(versions, key=lambda each: int(each.version))
    return client.get_model_version(parts["name"], parts["version"])


def register(
    bundle: Bundle, *, name: str, example: bytes, metrics: Mapping[str, float]
) -> RegisteredModel:
    """Log the bundle to the active run and register it.

    Args:
        bundle: what is registered.
        name: of the registered model.
        example: an encoded image, stored as the input example.
        metrics: shown with the version.
    """
    logged = mlflow.pyfunc.log_model(
        name="model",
        python_model=str(_PACKAGE / "tracking" / "pyfunc.py"),
        artifacts={"bundle": str(bundle.folder)},
        code_paths=[str(_PACKAGE)],
        pip_requirements=_serving_requirements(),
        signature=_signature(bundle),
        input_example=pd.DataFrame({"image": [example]}),
    )
    _share(bundle, logged=logged)
    model_version = _new_version(name, logged=logged)
    _describe(bundle, name=name, version=model_version, metrics=metrics)
    return RegisteredModel(name=name, version=model_version, uri=f"models:/{name}/{model_version}")


def approve(model: RegisteredModel) -> None:
    """Move the alias 'approved' to a version, which may be older than the one that has it."""
    MlflowClient().set_registered_model_alias(model.name, PASSED_ALIAS, model.version)


def _share(bundle: Bundle, *, logged: ModelInfo) -> None:
    """Where MLflow's files lie on this disk, let its copy of the bundle be no second one."""
    place = urlsplit(mlflow.get_logged_model(logged.model_id).artifact_location)
    if place.scheme not in ("", "file"):
        return
    folder = Path(url2pathname(place.path)) / "artifacts" / bundle.folder.name
    for file in FILES:
        if (folder / file).is_file():
            with atomic_path(folder / file, durable=False) as temporary:
                link_or_copy(bundle.folder / file, temporary)


def probability_columns(classes: Sequence[str]) -> list[str]:
    """A column's name for each class: its own, unless the table's other columns have it."""
    taken, names = {*_COLUMNS, *classes}, []
    for label in classes:
        name = label
        while name in _COLUMNS or (name != label and name in taken):
            name = f"probability of {name}"
        names.append(name)
    return names


def is_registered(model: RegisteredModel, *, tracking_uri: str) -> bool:
    """Whether the registry still has that version; a server that does not say is believed."""
    try:
        MlflowClient(tracking_uri).get_model_version(model.name, model.version)
    except MlflowException as error:
        return bool(error.error_code != _MISSING)
    return True


def _new_version(name: str, *, logged: ModelInfo) -> str:
    """What `mlflow.register_model` does, without its messages on the terminal.

    A server, unlike a database, wants to be told the model's id beside its URI.
    """
    client = MlflowClient()
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != _TAKEN:  # another run was faster
                raise
    version = client.create_model_version(
        name, source=logged.model_uri, run_id=logged.run_id, model_id=logged.model_id
    )
    return str(version.version)


def _signature(bundle: Bundle) -> ModelSignature:
    columns = probability_columns(bundle.metadata.classes)
    probabilities = [ColSpec(DataType.float, name) for name in columns]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, _COLUMNS[0]),
                ColSpec(DataType.float, _COLUMNS[1]),
                *probabilities,
            ]
        ),
    )


def _serving_requirements() -> list[str]:
    """The base install's packages, at the versions installed here, and pandas for MLflow."""
    declared = [line for line in requires("darkroom") or [] if "extra ==" not in line]
    names = [line.split(">")[0].split("=")[0].strip() for line in declared]
    return [f"{name}=={version(name)}" for name in (*names, "pandas")]


def _describe(bundle: Bundle, *, name: str, version: str, metrics: Mapping[str, float]) -> None:
    metadata = bundle.metadata
    tags = {
        "architecture": metadata.architecture,
        "classes": str(len(metadata.classes)),
        "data_fingerprint": metadata.data_fingerprint,
        "bundle_version": metadata.version,
        **{key: f"{value:.4f}" for key, value in metrics.items()},
    }
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
