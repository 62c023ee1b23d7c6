"""What the orchestrating job leaves for whoever follows it from afar: orchestration.py."""

import os
from functools import cache
from pathlib import Path

from darkroom.base.errors import DarkroomError, UserError

COMPONENTS_BEGIN = "darkroom: the components run from here on"
"""A line of its log; those before it are of the libraries that start up."""
FAILURE_FILE = Path("/opt/ml/output/failure")
"""What a job writes there becomes its FailureReason."""
KINDS: tuple[type[DarkroomError], ...] = (UserError, DarkroomError)
"""Errors whose own words are enough, as they are marked in the failure file."""


def is_orchestrating() -> bool:
    """Whether this process is the job that runs the pipeline."""
    return "TRAINING_JOB_NAME" in os.environ


@cache
def announce_components() -> None:
    """In the job: print the line, once; elsewhere nothing."""
    if is_orchestrating():
        print(COMPONENTS_BEGIN, flush=True)


def leave_reason(exception: BaseException, *, file: Path = FAILURE_FILE) -> None:
    """In the job: say why a component failed, such that whoever follows is told so."""
    if file.parent.is_dir():
        kind = next((k.__name__ for k in KINDS if isinstance(exception, k)), None)
        name = kind or type(exception).__name__
        file.write_text(f"{name}: {exception}", encoding="utf-8")
