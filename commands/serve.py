"""`python run.py serve`: the `serve` program in the foreground, on loopback."""

import os
import sys

from commands.models import find_model


def serve_model(
    *, model: str | None, models: str | None, port: int, **settings: str | bool | None
) -> None:
    """Become the `serve` program: nothing of this one stays in memory.

    Args:
        settings: further options of the program, by name; None: not given.

    Raises:
        UserError: no model was named, and no run has left one.
    """
    place = ["--models", models] if models else []
    if model or not models:  # the program says that both cannot be
        place.append(str(find_model(model).path))
    command = [sys.executable, "-m", "darkroom.serving.program", *place, "--host", "127.0.0.1"]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "--port", str(port), *_flags(settings)])  # noqa: S606


def _flags(settings: dict[str, str | bool | None]) -> list[str]:
    flags = []
    for name, value in settings.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            flags += [flag] if value is True else [f"{flag}={value}"]
    return flags
