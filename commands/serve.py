"""`python run.py serve`: the `serve` program in the foreground, on loopback."""

import click

from commands.newest import model_path
from darkroom.serving import program as serving


def serve_model(*, model: str | None, port: int) -> None:
    """Serve until interrupted."""
    path = model_path(model)
    click.echo(f"Serving {path} at http://127.0.0.1:{port}/invocations  (Ctrl-C ends it)")
    raise SystemExit(serving.main([str(path), "--host", "127.0.0.1", "--port", str(port)]))
