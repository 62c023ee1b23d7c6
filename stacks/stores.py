"""The databases of the workspace, ZenML's and MLflow's: made whole, in their own place, sound.

ZenML refuses for good a store whose creation was interrupted. A store of ours ends with a stack
being registered, all under one lock: one without a stack was left before that, and holds nothing.

Both databases hold absolute paths. In a checkout that was moved or copied they would lead to the
old place, which may be somebody else's by now.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import yaml
from sqlalchemy.exc import DBAPIError

from darkroom.base.errors import DarkroomError
from darkroom.base.files import write_text
from darkroom.base.progress import terminal_progress

_STORE = Path("local_stores", "default_zen_store", "zenml.db")
_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'stack'"
_STACK = "SELECT 1 FROM stack WHERE name != 'default' LIMIT 1"
"""Beside the one that every store begins with."""
_PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "zenml.db": {
        "artifact_version": ("uri",),
        "artifact_visualization": ("uri",),
        "logs": ("uri",),
        "run_metadata": ("value",),
    },
    "mlflow.db": {
        "experiments": ("artifact_location",),
        "runs": ("artifact_uri",),
        "logged_models": ("artifact_location",),
        "model_versions": ("source", "storage_location"),
    },
}
"""Columns that hold absolute paths, by database and table."""
_SECONDS_WAITED = 20
_SQLITE_BUSY = "database is locked"


def prepare_stores(workspace: Path) -> None:
    """Check and repair what earlier runs left, before ZenML opens it.

    Nobody else may be making the store meanwhile. A store that the user has put elsewhere is
    let be.

    Raises:
        DarkroomError: a database is damaged.
    """
    if _is_ours(workspace):
        discard_half_made_store(workspace)
        _raise_if_damaged(workspace / "zenml" / _STORE, holds="what earlier runs have computed")
        _raise_if_damaged(tracking_database(workspace), holds="MLflow's runs and registry")
        _move_along(workspace)


def tracking_database(workspace: Path) -> Path:
    """MLflow's, of the local stack."""
    return workspace / "artifacts" / "mlflow.db"


def discard_half_made_store(workspace: Path) -> None:
    """Remove the workspace's store, unless a stack was registered in it."""
    store = workspace / "zenml"
    if _is_ours(workspace) and store.exists() and not _has_stack((store / _STORE).resolve()):
        shutil.rmtree(store)


@contextmanager
def database_errors_explained(workspace: Path) -> Iterator[None]:
    """Say what to do when a database fails under a run.

    Raises:
        DarkroomError: it is locked for too long, damaged, or its disk is full.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        raise _explained(error, workspace=workspace) from error
    except Exception as error:
        # MLflow and ZenML wrap the error of a database in one of their own.
        cause = error.__cause__ or error.__context__
        while cause and not isinstance(cause, DBAPIError | sqlite3.Error):
            cause = cause.__cause__ or cause.__context__
        if cause is None or isinstance(error, DarkroomError):
            raise
        raise _explained(cause, workspace=workspace) from error


def _explained(error: BaseException, *, workspace: Path) -> DarkroomError:
    places = f"{str(workspace / 'zenml' / _STORE)!r} and {str(tracking_database(workspace))!r}"
    reason = str(getattr(error, "orig", error))
    if _SQLITE_BUSY in reason:
        return DarkroomError(
            f"a database stayed locked by another process for more than {_SECONDS_WAITED} s "
            f"({places}): end what holds it, such as an open `sqlite3`, and run the same command "
            "again; it goes on where it can"
        )
    return DarkroomError(
        f"a database of the workspace failed: {reason}. They are {places}. Is the disk full, or a "
        "file damaged? Make room, or move the damaged file away (its records are lost, models and "
        "reports stay), and run the same command again"
    )


def _is_ours(workspace: Path) -> bool:
    """Whether ZenML keeps its store in the workspace."""
    configured = Path(os.environ.get("ZENML_CONFIG_PATH", os.devnull))
    own = workspace / "zenml"
    return "ZENML_STORE_URL" not in os.environ and configured.resolve() == own.resolve()


def _has_stack(database: Path) -> bool:
    if not database.is_file():
        return False
    try:
        # Not read-only: what a killed process has left half written has to be rolled back first.
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
            return all(connection.execute(query).fetchone() for query in (_TABLE, _STACK))
    except sqlite3.Error:  # locked, or no database: looked into afterwards
        return True


def _raise_if_damaged(database: Path, *, holds: str) -> None:
    if not database.is_file():
        return
    try:
        with closing(_opened(database)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if _SQLITE_BUSY in str(error):
            raise _explained(error, workspace=database.parent.parent) from error
        found = str(error)
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise DarkroomError(
            f"the database {str(database)!r} is damaged ({' '.join(found.split())}). It holds "
            f"{holds}. Put a copy of yours in its place, or move the file away: "
            f"mv {database} {database}.damaged. Then run the same command again: a new one is "
            "made, and what is missing is computed anew; models and reports in runs/ stay"
        )


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{database.resolve().as_uri()}?mode=rw", uri=True, timeout=_SECONDS_WAITED
    )


def _move_along(workspace: Path) -> None:
    """Where the workspace was moved or copied here: let its databases know this place alone."""
    settings = workspace / "zenml" / "config.yaml"
    old = _former_place(settings)
    if old is None or _is_here(old, workspace=workspace):
        return
    text = settings.read_text(encoding="utf-8")
    for database in (workspace / "zenml" / _STORE, tracking_database(workspace)):
        if database.is_file():
            with closing(_opened(database)) as connection, connection:
                _rewrite(connection, _PLACES[database.name], old=str(old), new=str(workspace))
    # Last: until it says so, the next start does all of it again.
    write_text(settings, text.replace(f"{old}/", f"{workspace}/"))
    terminal_progress().message(
        f"This workspace was moved or copied from {str(old)!r}: it works in {str(workspace)!r} "
        "from now on. Earlier runs and models stay readable; the next run is computed anew"
    )


def _former_place(settings: Path) -> Path | None:
    """The workspace that ZenML's configuration names."""
    if not settings.is_file():
        return None
    try:
        content = yaml.safe_load(settings.read_text(encoding="utf-8"))
        url = str(content["store"]["url"])
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DarkroomError(
            f"the file {str(settings)!r} is damaged ({type(error).__name__}). Move it away: "
            f"mv {settings} {settings}.damaged. Then run the same command again: a new one is made"
        ) from error
    database, tail = url.removeprefix("sqlite:///"), f"/zenml/{_STORE}"
    is_ours = url.startswith("sqlite:///") and database.endswith(tail)
    return Path(database.removesuffix(tail)) if is_ours else None


def _is_here(old: Path, *, workspace: Path) -> bool:
    """Whether both names lead to one folder, as links do."""
    return old == workspace or (old.exists() and old.samefile(workspace))


def _rewrite(
    connection: sqlite3.Connection,
    places: dict[str, tuple[str, ...]],
    *,
    old: str,
    new: str,
) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    for table, columns in places.items():
        if table not in tables:
            continue
        for column in columns:
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?) "  # noqa: S608 - ours
                f"WHERE {column} LIKE ?",
                (f"{old}/", f"{new}/", f"%{old}/%"),
            )
