"""Where the newest run left its model."""

from pathlib import Path

from darkroom.errors import UserError
from darkroom.files import workspace


def model_path(name: str | None) -> Path:
    """The bundle that the user named, or the newest run's.

    Raises:
        UserError: no model was named and no run has left one.
    """
    if name:
        return Path(name).expanduser()
    newest = workspace() / "runs" / "latest" / "model"
    if not newest.is_dir():
        raise UserError(
            "no model yet: run `python run.py --stack local` first, or name a bundle folder "
            "or a model.tar.gz"
        )
    return newest
