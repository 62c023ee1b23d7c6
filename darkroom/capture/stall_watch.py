"""Seeing that a training stands still, from beside it, and ending it where a rule says so."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from darkroom.capture.live import LiveJudge
from darkroom.rules.findings import Finding

_LOOKS = 10
"""Within the seconds after which a training counts as stalled."""
_SHORTEST, _LONGEST = 0.1, 60.0
"""Seconds between two looks."""
GRACE_SECONDS = 20.0
"""That a training which hangs has, to end by itself once it is interrupted."""
_INTERRUPTIONS = 2
"""Within those seconds: Python drops an exception that is raised in a destructor or in a callback
of the garbage collector, and nothing tells us that it did."""
_SIGNAL = signal.SIGUSR1


class TrainingHangs(BaseException):
    """A rule ends a training that makes no more steps."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.title)
        self.finding = finding


def leave_at_once(finding: Finding) -> None:
    """End the process: the training hangs in code that cannot be interrupted."""
    print(
        f"the training was ended by a rule: {finding.in_words}; it hangs in code that cannot be "
        "interrupted, so its process ends",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


@contextmanager
def watching_for_stalls(
    judge: LiveJudge, *, give_up: Callable[[Finding], None] = leave_at_once
) -> Iterator[None]:
    """Let a judge look for a stall again and again, while the block runs.

    A stall whose action is to stop or to fail the training interrupts the block's thread.

    Args:
        give_up: called where that does not help, from another thread; ends the process.

    Raises:
        TrainingHangs: the training was interrupted.
    """
    threshold = judge.stall_seconds
    if threshold is None:
        yield
        return
    ended = threading.Event()
    interval = min(max(threshold / _LOOKS, _SHORTEST), _LONGEST)
    with _interruptible(judge) as interrupt:

        def watch() -> None:
            while not ended.wait(interval):
                judge.look_for_stall()
                if judge.hangs:
                    for _ in range(_INTERRUPTIONS):
                        interrupt()
                        if ended.wait(GRACE_SECONDS / _INTERRUPTIONS):
                            return
                    give_up(judge.hangs)
                    return

        thread = threading.Thread(target=watch, name="stall watch", daemon=True)
        try:
            try:
                thread.start()
                yield
            finally:
                ended.set()
        finally:  # the interruption may come while the thread is started, or just before the end
            ended.set()
            thread.join()


@contextmanager
def _interruptible(judge: LiveJudge) -> Iterator[Callable[[], None]]:
    """Yield what makes this thread raise TrainingHangs, from another one.

    A signal ends waiting too, such as for a lock or a socket, but only the main thread has
    handlers; in any other the exception is raised at its next line of Python.
    """
    thread = threading.get_ident()

    def raise_it(*_: object) -> None:
        if judge.hangs:
            raise TrainingHangs(judge.hangs)

    if threading.current_thread() is threading.main_thread():
        before = signal.signal(_SIGNAL, raise_it)
        try:
            yield lambda: signal.pthread_kill(thread, _SIGNAL)
        finally:
            signal.signal(_SIGNAL, before)
        return

    class Hangs(TrainingHangs):
        """Python makes it without arguments."""

        def __init__(self) -> None:
            assert judge.hangs  # noqa: S101 - nothing else lets it be raised
            super().__init__(judge.hangs)

    def interrupt() -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Hangs))

    yield interrupt
