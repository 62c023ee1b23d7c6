"""`python run.py`: run the training pipeline on a stack and show the result."""

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console

from commands.source_name import short_name
from darkroom.backends.ingestion import source_version
from darkroom.config import Config
from darkroom.config.loading import load_config
from darkroom.errors import UserError
from darkroom.progress import terminal_progress
from darkroom.summary import render, write_summary


def run_training(
    *,
    stack: str,
    config: Path,
    data: str | None,
    overrides: Sequence[str],
    summary: Path | None,
    keep_endpoint: bool,
    no_cache: bool,
) -> None:
    """Run the main job.

    Raises:
        UserError: configuration, data or options have to change.
        DarkroomError: a component failed.
    """
    settings = load_config(config, overrides=overrides, data=data)
    _check_writable(summary)
    version = source_version(settings.data.source, config=settings.data)
    name = _run_name(settings)
    terminal_progress().message(f"Run {name} on stack {stack}")
    # ZenML takes seconds to import: only once the input is known to be good.
    from commands.outcome import conclude
    from pipelines.training import training_pipeline
    from stacks.loader import use_stack

    use_stack(stack)
    os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "false"  # the final training alone
    tracker = {"experiment_name": settings.tracking.experiment, "tags": settings.tracking.tags}
    run = training_pipeline.with_options(
        run_name=name,
        enable_cache=not no_cache,
        settings={"experiment_tracker": tracker},
    )(config=settings, source_version=version, keep_endpoint=keep_endpoint)
    result = conclude(run, config=settings, stack=stack, started=_process_started())
    if summary:
        write_summary(result, summary)
    Console().print(render(result), soft_wrap=True)


def _run_name(config: Config) -> str:
    moment = time.strftime("%Y%m%d-%H%M%S")
    source = short_name(config.data.source)
    return f"{source}-{config.model.architecture}-{moment}-{secrets.token_hex(2)}"


def _process_started() -> float:
    return psutil.Process().create_time()


def _check_writable(summary: Path | None) -> None:
    """Refuse before the work what could only fail after it."""
    if summary and (summary.is_dir() or not os.access(summary.absolute().parent, os.W_OK)):
        raise UserError(
            f"--summary {str(summary)!r} cannot be written: "
            "name a file in an existing folder that you may write to"
        )
