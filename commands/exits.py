"""How the command line ends: messages for people, exit codes for programs."""

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

import click

from darkroom.errors import DarkroomError, UserError

_INTERRUPTED = 128 + signal.SIGINT
_A_MOMENT_SECONDS = 0.05
_MOMENTS_UNTIL_LOST = 6
"""A `finally` that is left for the next one is no handler for a moment."""


def run_and_exit(cli: click.Group) -> NoReturn:
    """Run the command line; what a user can cause ends in a message, not a traceback.

    Exits with 0 when done, 1 when something failed, 2 when the input has to change,
    130 when interrupted.
    """
    leaving = _Leaving()
    atexit.register(leaving)  # the first to be registered is the last to be called
    interruption = _Interruption()
    signal.signal(signal.SIGTERM, interruption.begin)
    signal.signal(signal.SIGINT, interruption.begin)
    sys.unraisablehook = _interrupt_again
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        interruption.has_arrived = True
        click.echo("\nInterrupted. The same command goes on where it can.", err=True)
        leaving.at_once_with = _INTERRUPTED
        sys.exit(_INTERRUPTED)
    except DarkroomError as error:
        click.echo(_message(error), err=True)
        sys.exit(error.exit_code)
    except Exception:
        if not interruption.has_begun:
            raise
        # An import that it hit has failed, and said so in another error's words.
        interruption.has_arrived = True
        click.echo("\nInterrupted. The same command goes on where it can.", err=True)
        leaving.at_once_with = _INTERRUPTED
        sys.exit(_INTERRUPTED)
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


class _Interruption:
    """A KeyboardInterrupt that arrives, wherever it is raised.

    Libraries lose it while they are imported: where one is tried for with `except:`, or C code
    clears the error of an import that failed, the program goes on as if nobody had pressed
    Ctrl-C. So it is looked after: as long as no handler of it is at work in the main thread and
    it has not come to the end of the program, it is raised again.
    """

    def __init__(self) -> None:
        self.has_arrived = False
        self.has_begun = False

    def begin(self, _signal: int, _frame: FrameType | None) -> NoReturn:
        """Handle a signal."""
        if not self.has_begun:
            self.has_begun = True
            threading.Thread(target=self._watch, daemon=True).start()
        raise KeyboardInterrupt

    def _watch(self) -> None:
        missing = 0
        while not self.has_arrived:
            time.sleep(_A_MOMENT_SECONDS)
            missing = 0 if _is_being_handled() else missing + 1
            if missing >= _MOMENTS_UNTIL_LOST and not self.has_arrived:
                missing = 0
                _thread.interrupt_main()


def _is_being_handled() -> bool:
    """Whether the main thread is in an `except`, `finally` or `with` of an interruption."""
    current: Any = sys._current_exceptions().get(threading.main_thread().ident or 0)
    error = current[1] if isinstance(current, tuple) else current  # a tuple before Python 3.12
    while error is not None:
        if isinstance(error, KeyboardInterrupt | click.Abort):
            return True
        error = error.__context__
    return False


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
