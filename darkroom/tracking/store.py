"""MLflow's database, made whole or not at all.

MLflow makes it by dozens of migrations, and refuses for good one whose making was interrupted.

    python -m darkroom.tracking.store DATABASE ARTIFACTS
"""

import sys
from pathlib import Path

from filelock import FileLock

from darkroom.files import atomic_path

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


if __name__ == "__main__":
    make_store(Path(sys.argv[1]), artifacts=sys.argv[2])
