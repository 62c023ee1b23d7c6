"""How the command line ends: messages for people, exit codes for programs."""

import _thread
import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import click

from darkroom.errors import DarkroomError, UserError

_INTERRUPTED = 128 + signal.SIGINT
_A_MOMENT_SECONDS = 0.05


def run_and_exit(cli: click.Group) -> NoReturn:
    """Run the command line; what a user can cause ends in a message, not a traceback.

    Exits with 0 when done, 1 when something failed, 2 when the input has to change,
    130 when interrupted.
    """
    leaving = _Leaving()
    atexit.register(leaving)  # the first to be registered is the last to be called
    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _interrupt_again
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nInterrupted. The same command goes on where it can.", err=True)
        leaving.at_once_with = _INTERRUPTED
        sys.exit(_INTERRUPTED)
    except DarkroomError as error:
        click.echo(_message(error), err=True)
        sys.exit(error.exit_code)
    sys.exit(0)


class _Leaving:
    """Ends an interrupted process once all else is done, without taking the interpreter down.

    An interruption may hit the import of an extension module: what that leaves half made has
    crashed the interpreter's last garbage collection, and the exit code was -11.
    """

    at_once_with: int | None = None

    def __call__(self) -> None:
        if self.at_once_with is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(self.at_once_with)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _interrupt_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """An interruption that came while an object was being destroyed is lost: make it come again."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        # From a thread: raised here and now, it would be lost once more.
        threading.Timer(_A_MOMENT_SECONDS, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def _message(error: DarkroomError) -> str:
    if isinstance(error, UserError) and len(error.problems) > 1:
        lines = "\n".join(f"  - {problem}" for problem in error.problems)
        return f"{len(error.problems)} problems:\n{lines}"
    return f"Error: {error}"
