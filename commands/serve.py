"""`python run.py serve`: the `serve` program in the foreground, on loopback."""

import os
import sys
from pathlib import Path

from commands.models import find_model
from darkroom.base.errors import UserError
from darkroom.serving.model_names import ModelNames


def serve_model(
    *, model: str | None, models: str | None, port: int, **settings: str | bool | None
) -> None:
    """Become the `serve` program: nothing of this one stays in memory.

    Args:
        settings: further options of the program, by name; None: not given.

    Raises:
        UserError: no model was named, and no run has left one; or nothing could be asked.
    """
    if models:
        _check_models(Path(models))
    place = ["--models", models] if models else []
    if model or not models:  # the program says that both cannot be
        place.append(str(find_model(model).path))
    command = [sys.executable, "-m", "darkroom.serving.program", *place, "--host", "127.0.0.1"]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "--port", str(port), *_flags(settings)])  # noqa: S606


def _check_models(folder: Path) -> None:
    """Refuse a folder without models: a server that knows none would look as if it worked."""
    names = ModelNames(folder)
    if names.is_bundle(folder):
        raise UserError(f"--models {str(folder)!r} is one model itself: name it without --models")
    if folder.is_dir() and not names.present()[0]:
        raise UserError(
            f"--models {str(folder)!r} holds no model: bundles are folders with a model.json, or "
            ".tar.gz, up to four levels below it"
        )


def _flags(settings: dict[str, str | bool | None]) -> list[str]:
    flags = []
    for name, value in settings.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            flags += [flag] if value is True else [f"{flag}={value}"]
    return flags
