"""The stack that a command works on, made ready: values loaded, a stand-in started."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from darkroom.base.errors import UserError
from darkroom.base.progress import terminal_progress

if TYPE_CHECKING:
    from rehearsal.session import StandIn


@contextmanager
def ready(stack: str, *, faults: Sequence[str] = ()) -> Iterator["StandIn | None"]:
    """Make this process see the stack's account while the block runs.

    Yields:
        For the rehearsal, the stand-in that plays AWS.

    Raises:
        UserError: values are missing, or faults are asked for where nothing is rehearsed.
    """
    if faults and stack != "rehearsal":
        raise UserError(f"--fault works on the stack 'rehearsal' alone, not on {stack!r}")
    if faults:
        from rehearsal.session import check_faults

        check_faults(faults)
    if stack == "rehearsal":
        with _rehearsal(faults) as running:
            yield running
        return
    if stack == "sagemaker":
        from stacks.values import load_values

        load_values(stack)
    yield None


@contextmanager
def _rehearsal(faults: Sequence[str]) -> Iterator["StandIn"]:
    """The stand-in that is kept up, or one for this command alone."""
    from rehearsal.session import find_kept, new_folder, remove_bulk, stand_in
    from stacks.values import load_values

    if kept := find_kept():
        if faults:
            raise UserError("a stand-in is up already; give --fault to `python -m rehearsal`")
        kept.enter()
        load_values("rehearsal")
        with kept.watched():
            yield kept
        return
    progress = terminal_progress()
    progress.message("Starting a stand-in for AWS, a ZenML server and an MLflow server …")
    started = time.monotonic()
    folder = new_folder(time.strftime("%Y%m%d-%H%M%S"))
    try:
        with stand_in(folder, faults=faults) as running:
            running.enter()
            load_values("rehearsal")
            seconds = time.monotonic() - started
            progress.message(f"… up after {seconds:.0f} s, on the loopback alone")
            yield running
    finally:
        remove_bulk(folder)
