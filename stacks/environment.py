"""What has to stand in the environment before ZenML, MLflow or torch are imported."""

import os
from pathlib import Path

from darkroom.base.errors import UserError

CHECKOUT = Path(__file__).resolve().parent.parent

SETTINGS = {
    # No telemetry.
    "ZENML_ANALYTICS_OPT_IN": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Nothing but our own messages on the terminal.
    "AUTO_OPEN_DASHBOARD": "false",
    "ZENML_LOGGING_VERBOSITY": "CRITICAL",
    "ZENML_LOGGING_COLORS_DISABLED": "true",
    "ZENML_ENABLE_RICH_TRACEBACK": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's tracker and steps in several threads race for its global tracking URI.
    "ZENML_DYNAMIC_PIPELINE_WORKER_COUNT": "1",
    # The default of 10 s records nothing of a short training.
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
}
"""Of every process that runs ZenML, here and in the job that orchestrates."""


def prepare_environment() -> Path:
    """Set defaults, leaving what the user has set; return the workspace folder.

    Caches of matplotlib and of the uv that ZenML asks for the installed packages lie in the
    workspace too, not in the user's home.

    So does ZenML's own store, unless the user configured one.

    Raises:
        UserError: the workspace cannot be made.
    """
    given = Path(os.environ.get("DARKROOM_HOME") or CHECKOUT / ".darkroom")
    workspace = Path(os.path.abspath(given.expanduser()))
    os.environ["DARKROOM_HOME"] = str(workspace)
    # It holds people's photographs.
    try:
        workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(
            f"the folder of all that a run writes cannot be made, {str(workspace)!r}: "
            f"{error.strerror}. Set DARKROOM_HOME to a folder that you may write to"
        ) from error
    caches = {"MPLCONFIGDIR": str(workspace / "cache"), "UV_CACHE_DIR": str(workspace / "cache")}
    for name, value in {**SETTINGS, **caches}.items():
        os.environ.setdefault(name, value)
    if "ZENML_STORE_URL" not in os.environ:
        os.environ.setdefault("ZENML_CONFIG_PATH", str(workspace / "zenml"))
    return workspace
