"""How the command line ends: messages for people, exit codes for programs."""

import _thread
import atexit
import errno
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from shutil import disk_usage
from types import FrameType
from typing import Any, NoReturn

import click

from darkroom.base.errors import DarkroomError, UserError, not_installed

INTERRUPTED = 128 + signal.SIGINT
_UNUSABLE_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_HOME = "Could not determine home directory"
"""pathlib's words for ~nobody, as a RuntimeError."""
_OUT_OF_MEMORY = "can't allocate memory"
"""PyTorch's words, as a RuntimeError."""
_ROOM_BYTES = 1 << 20
_SHOWN = 80
"""Characters of a path that is too long."""
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
    except (KeyboardInterrupt, Exception) as error:
        if _is_interruption(error, has_begun=interruption.has_begun):
            interruption.has_arrived = True
            click.echo("\nInterrupted. The same command goes on where it can.", err=True)
            leaving.at_once_with = INTERRUPTED
            sys.exit(INTERRUPTED)
        told = explained(error) or _fault(error)
        click.echo(_message(told), err=True)
        sys.exit(told.exit_code)
    sys.exit(0)


def _is_interruption(error: BaseException, *, has_begun: bool) -> bool:
    """Whether the user ended it: an import that a signal hits fails in another error's words."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return True
    return has_begun and not isinstance(error, DarkroomError)


def explained(error: BaseException) -> DarkroomError | None:
    """What is told of an error that a user can cause anywhere; None: it is a fault of ours."""
    while error.__cause__ is not None and not isinstance(error, DarkroomError | OSError):
        error = error.__cause__  # a library has put it into its own words
    if isinstance(error, DarkroomError):
        return error
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY in str(error):
        return DarkroomError(
            "the memory is used up. End other programs, or make the work smaller: "
            "training.batch_size, model.image_size, training.processes"
        )
    if isinstance(error, RuntimeError) and _NO_HOME in str(error):
        return UserError("a path begins with ~ and the name of nobody here: write it out in full")
    if isinstance(error, ModuleNotFoundError) and _is_missing(error.name):
        return UserError(not_installed(error))
    return _explained_by_system(error) if isinstance(error, OSError) else None


def _is_missing(module: str | None) -> bool:
    """Whether nothing of its package is installed; else the name of the module is wrong."""
    return module is not None and find_spec(module.partition(".")[0]) is None


def _explained_by_system(error: OSError) -> DarkroomError | None:
    from darkroom.base.files import full_disk_message, is_full_disk, workspace

    path = None if error.filename is None else os.fsdecode(error.filename)
    if is_full_disk(error):
        if not path and _has_room(workspace()):
            return DarkroomError(
                f"a disk is full, though not that of {str(workspace())!r}: make room where the "
                "output goes, or write it elsewhere"
            )
        return DarkroomError(full_disk_message(Path(path) if path else workspace()))
    if error.errno in _UNUSABLE_NAME and path:
        shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"
        return UserError(f"{shown!r} is no path that can be used: {error.strerror}")
    if error.errno in _NOT_ALLOWED:
        if path and Path(os.path.abspath(path)).is_relative_to(workspace()):
            return UserError(
                f"{path!r} may not be read or written ({error.strerror}): it lies in Darkroom's "
                f"own folder, {str(workspace())!r}. Give it to the user who runs Darkroom, or set "
                "DARKROOM_HOME to a folder that you may write to"
            )
        return UserError(f"{path or 'this'!r} is not allowed to you: {error.strerror}")
    return None


def _has_room(path: Path) -> bool:
    """Whether its file system is not the full one."""
    with suppress(OSError):  # not made yet, or not to be asked
        return disk_usage(path).free > _ROOM_BYTES
    return True


def _fault(error: BaseException) -> DarkroomError:
    """Keep the traceback of what should not have happened, and say where."""
    from darkroom.base.files import workspace, write_text

    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    path = workspace() / "errors" / name
    told = "".join(traceback.format_exception(error))
    try:
        write_text(path, told)
    except OSError:
        click.echo(told, err=True)
        place = "above"
    else:
        place = f"in {str(path)!r}"
    first = str(error).strip().partition("\n")[0]
    return DarkroomError(
        f"this is a fault of Darkroom, not of your input: {type(error).__name__}: {first}. "
        f"Its traceback is {place}; please report it with the command that you ran"
    )


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
