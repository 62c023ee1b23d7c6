"""MLflow's database, made whole or not at all.

MLflow makes it by dozens of migrations, and refuses for good one whose making was interrupted.

    python -m darkroom.tracking.store DATABASE ARTIFACTS
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from darkroom.base.files import atomic_path

DATABASE_FILE = "mlflow.db"


def make_store(database: Path, *, artifacts: str) -> None:
    """Make the database, unless it is there.

    Args:
        artifacts: path or URI below which experiments keep theirs, where they name no other.
    """
    if database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if not database.exists():  # nobody else was faster
            with atomic_path(database) as temporary:
                SqlAlchemyStore(f"sqlite:///{temporary}", artifacts).engine.dispose()


def newest_experiment(database: Path) -> str | None:
    """The id of the experiment with the newest run; None where there is no run."""
    query = "SELECT experiment_id FROM runs ORDER BY start_time DESC LIMIT 1"
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute(query).fetchone()
    return str(found[0]) if found else None


if __name__ == "__main__":
    make_store(Path(sys.argv[1]), artifacts=sys.argv[2])
