"""Discards a ZenML store whose creation was interrupted: ZenML refuses it for good.

A store of ours ends with a stack being registered, all under one lock. One without a stack was
left before that, and holds nothing yet.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

_DATABASE = Path("local_stores", "default_zen_store", "zenml.db")
_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'stack'"
_STACK = "SELECT 1 FROM stack WHERE name != 'default' LIMIT 1"
"""Beside the one that every store begins with."""


def discard_half_made_store(workspace: Path) -> None:
    """Remove the workspace's store, unless a stack was registered in it.

    Nobody else may be making it meanwhile. A store that the user has put elsewhere is let be.
    """
    store = workspace / "zenml"
    is_ours = "ZENML_STORE_URL" not in os.environ and _is_same(store, "ZENML_CONFIG_PATH")
    if is_ours and store.exists() and not _has_stack((store / _DATABASE).resolve()):
        shutil.rmtree(store)


def _is_same(path: Path, variable: str) -> bool:
    return path.resolve() == Path(os.environ.get(variable, os.devnull)).resolve()


def _has_stack(database: Path) -> bool:
    if not database.is_file():
        return False
    try:
        # Not read-only: what a killed process has left half written has to be rolled back first.
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
            return all(connection.execute(query).fetchone() for query in (_TABLE, _STACK))
    except sqlite3.Error:  # locked, or no database: for ZenML to say
        return True
