"""Child programs that end when whoever started them is gone, even if it was killed.

The parent asks for it by the environment variable `DARKROOM_PARENT_PID`.
"""

import os
import signal
import threading
import time

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
