"""Child programs that end with whoever started them, and memory given back to the system."""

import ctypes
import os
import signal
import threading
import time

# --- parent watch ---

PARENT_VARIABLE = "DARKROOM_PARENT_PID"
_SECONDS_BETWEEN_LOOKS = 0.5


def parent_environment() -> dict[str, str]:
    """What to add to a child's environment so that it does not outlive this process."""
    return {PARENT_VARIABLE: str(os.getpid())}


def end_with_parent() -> None:
    """Watch the parent, if it asked for that; when it is gone, send SIGTERM to this process.

    A thread that looks, rather than Linux's parent-death signal: that one comes as soon as
    the parent's thread which started the child ends, and is known to Linux alone.
    """
    if parent := os.environ.get(PARENT_VARIABLE):
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


# --- memory ---


def give_back_freed() -> None:
    """Let the C library give the system back what was freed.

    glibc keeps it for later otherwise: after forty models were loaded one after the other,
    150 MB that nobody used. Other C libraries have no such call, and need none.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
