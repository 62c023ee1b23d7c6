"""`python run.py ui`: MLflow's user interface on the runs so far."""

import os
import socket
import sys

import click

from darkroom.errors import UserError
from darkroom.files import workspace


def serve_ui(*, port: int) -> None:
    """Become MLflow's server; Ctrl-C ends it.

    Raises:
        UserError: there are no runs yet, or the port is taken.
    """
    store = workspace() / "artifacts" / "mlflow.db"
    if not store.is_file():
        raise UserError("no runs yet: start one with `python run.py --stack local`")
    port = _free_port(port)
    click.echo(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C ends it)")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{store}", "--workers", "1"]
    # Its job runner would start a dozen processes that nothing here uses.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.execv(sys.executable, command)  # noqa: S606 - our own arguments, no shell


def _free_port(port: int) -> int:
    """Port 0 means any; a named one has to be free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"port {port} is taken; choose another with --port, or 0 for any"
            ) from error
        return int(probe.getsockname()[1])
