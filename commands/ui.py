"""`python run.py ui`: MLflow's user interface on the runs so far."""

import os
import socket
import sys

import click

from commands.runs import close_killed_runs
from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.tracking.store import DATABASE_FILE, newest_experiment

_FOLDERS = {"local": "artifacts", "rehearsal": "rehearsals/mlflow"}
"""Where MLflow's database lies in the workspace."""


def serve_ui(*, stack: str, port: int) -> None:
    """Become MLflow's server; Ctrl-C ends it.

    Args:
        stack: whose runs; on SageMaker they are on the server that the stack names.

    Raises:
        UserError: there are no runs yet, or the port is taken.
    """
    if stack == "sagemaker":
        raise UserError(
            "the runs on SageMaker are on the MLflow server that DARKROOM_MLFLOW_URI names: open it"
        )
    folder = workspace() / _FOLDERS[stack]
    store = folder / DATABASE_FILE
    if not store.is_file():
        raise UserError(f"no runs yet: start one with `python run.py --stack {stack}`")
    port = _free_port(port)
    if stack == "local":
        close_killed_runs()
    experiment = newest_experiment(store)
    page = f"/#/experiments/{experiment}/runs" if experiment else ""
    click.echo(f"MLflow: http://127.0.0.1:{port}{page}  (Ctrl-C ends it)")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{store}", "--workers", "1"]
    if stack == "rehearsal":  # there, artifacts went through the server
        command += ["--artifacts-destination", str(folder / "artifacts")]
    # Its job runner would start a dozen processes that nothing here uses.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # Of MLflow's own use of its own old names; nothing that who reads it could mend.
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
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
