"""Removing a run from a local MLflow: its record, its files, and versions that it registered."""

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

_ALIASES = "SELECT name, version, alias FROM registered_model_aliases"
_BELOW = """
WITH RECURSIVE below(id) AS (
    SELECT ? UNION SELECT run_uuid FROM tags JOIN below ON value = id
    WHERE key = 'mlflow.parentRunId'
)
SELECT artifact_uri FROM runs JOIN below ON run_uuid = id
"""
_MODELS = "SELECT artifact_location FROM logged_models WHERE source_run_id = ?"


def aliases(database: Path) -> dict[tuple[str, str], str]:
    """By model and version, the alias that points at it."""
    if not database.is_file():
        return {}
    with closing(_opened(database)) as connection:
        rows = connection.execute(_ALIASES).fetchall()
    return {(str(name), str(version)): str(alias) for name, version, alias in rows}


def folders_of(run_id: str, *, database: Path) -> list[Path]:
    """Where a run, those below it, and the models that they logged keep their files here."""
    if not database.is_file():
        return []
    with closing(_opened(database)) as connection:
        found = connection.execute(_BELOW, (run_id,)).fetchall()
        found += connection.execute(_MODELS, (run_id,)).fetchall()
    places = [urlsplit(str(uri)) for (uri,) in found]
    return [Path(url2pathname(place.path)) for place in places if place.scheme in ("", "file")]


def remove_run(run_id: str, *, database: Path) -> None:
    """Delete a run with what it logged and registered. Fine if it is gone."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    folders = folders_of(run_id, database=database)
    with suppress(MlflowException):
        for version in client.search_model_versions(f"run_id = '{run_id}'"):
            client.delete_model_version(version.name, version.version)
        run = client.get_run(run_id)
        below = f"tags.mlflow.parentRunId = '{run_id}'"
        for one in client.search_runs([run.info.experiment_id], below):
            client.delete_run(one.info.run_id)
        client.delete_run(run_id)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
