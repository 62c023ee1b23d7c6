"""MLflow's model registry."""

from collections.abc import Mapping
from importlib.metadata import requires, version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema
from pydantic import BaseModel

from darkroom.model.bundle import Bundle

_PACKAGE = Path(__file__).resolve().parent.parent


class RegisteredModel(BaseModel):
    """A version in the model registry."""

    name: str
    version: str
    uri: str
    """models:/NAME/VERSION, as MLflow's own commands take it."""
    package: str | None = None
    """ARN of its model package in SageMaker's registry."""


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
    model_version = _new_version(name, logged=logged)
    _describe(bundle, name=name, version=model_version, metrics=metrics)
    return RegisteredModel(name=name, version=model_version, uri=f"models:/{name}/{model_version}")


def _new_version(name: str, *, logged: ModelInfo) -> str:
    """What `mlflow.register_model` does, without its messages on the terminal.

    A server, unlike a database, wants to be told the model's id beside its URI.
    """
    client = MlflowClient()
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(
        name, source=logged.model_uri, run_id=logged.run_id, model_id=logged.model_id
    )
    return str(version.version)


def _signature(bundle: Bundle) -> ModelSignature:
    probabilities = [ColSpec(DataType.float, label) for label in bundle.metadata.classes]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "class"),
                ColSpec(DataType.float, "probability"),
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
