"""Starts the process that serves, and starts it again when it crashes.

The supervisor holds the listening socket and imports nothing heavy, so that it costs a few
megabytes and nothing that a request does can harm it. A crash of the serving process (a fault
in a native library, the kernel's out-of-memory killer) costs the requests that were under
way; the next ones wait in the socket's queue until a new process takes over.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from darkroom.serving.parent_watch import PARENT_VARIABLE

_MOST_CRASHES = 5
_WITHIN_SECONDS = 60
"""More crashes in so long, and the supervisor gives up: something is wrong for good."""

_PAUSE_SECONDS = 0.2
_LOOK_SECONDS = 0.5
_SECONDS_TO_END = 28
"""After SIGTERM; SageMaker kills the container after 30."""

_ENDING = (signal.SIGTERM, signal.SIGINT)

Serve = Callable[[int, Callable[[], None]], int]
"""Serves until it is told to end. Given how often it was started again, and what to call once it
is ready; it calls `handle_signals`, and returns the exit code."""

Say = Callable[..., None]
"""Writes an event with its fields to the log."""


def supervise(serve: Serve, *, say: Say) -> int:
    """Run `serve` in a child process until it ends by itself or this process is told to end.

    A child that ends before it was ready is not started again: its mistake would be the same.

    Returns:
        The exit code: the child's, or 1 where it crashed too often.
    """
    return _Supervisor(serve, say=say).run()


@dataclass
class _Child:
    pid: int
    ready: int
    """Descriptor that is readable once the child is ready, or gone."""
    is_told: bool = False

    def end(self, number: int) -> None:
        """Send a signal; fine if it has ended, since waitpid will tell."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclass
class _Supervisor:
    serve: Serve
    say: Say
    restarts: int = 0
    crashes: list[float] = field(default_factory=list)
    """When the latest were."""
    told_to_end: float | None = None
    parent: int = field(default_factory=os.getppid)

    def run(self) -> int:
        wakeup, wake = os.pipe()
        os.set_blocking(wake, False)
        previous = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)
        } | {signal.SIGCHLD: signal.signal(signal.SIGCHLD, _do_nothing)}
        try:
            return self._run(wakeup)
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(wakeup)
            os.close(wake)

    def _run(self, wakeup: int) -> int:
        while True:
            child = self._start(wakeup)
            status = self._wait(child, wakeup=wakeup)
            was_ready = bool(os.read(child.ready, 1))
            os.close(child.ready)
            code = os.waitstatus_to_exitcode(status)
            if self.told_to_end is not None or not was_ready or code == 0:
                return _exit_code(code, asked=self.told_to_end is not None)
            if not self._may_restart(code):
                return 1
            time.sleep(_PAUSE_SECONDS)

    def _start(self, wakeup: int) -> _Child:
        ready, tell_ready = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        # The child handles these once it serves (`handle_signals`); until then they wait for
        # it, rather than being taken by the handlers that it inherits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
            os.close(tell_ready)
            return _Child(pid, ready=ready)
        # From here on: the child, which never returns.
        code = 1
        try:
            os.close(ready)
            os.close(wakeup)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.environ[PARENT_VARIABLE] = str(supervisor)
            code = self.serve(self.restarts, lambda: _tell(tell_ready))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _wait(self, child: _Child, *, wakeup: int) -> int:
        """The child's status, once it has ended."""
        while True:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                return status
            if self._must_end():
                if not child.is_told:
                    child.end(signal.SIGTERM)
                    child.is_told = True
                if self._is_overdue():
                    child.end(signal.SIGKILL)
            if select.select([wakeup], [], [], _LOOK_SECONDS)[0]:
                os.read(wakeup, 4096)

    def _must_end(self) -> bool:
        watched = os.environ.get(PARENT_VARIABLE)
        if self.told_to_end is None and watched and os.getppid() != int(watched):
            self.told_to_end = time.monotonic()
        return self.told_to_end is not None

    def _is_overdue(self) -> bool:
        return time.monotonic() - (self.told_to_end or 0) > _SECONDS_TO_END

    def _may_restart(self, code: int) -> bool:
        now = time.monotonic()
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.crashes = [*(t for t in self.crashes if now - t < _WITHIN_SECONDS), now]
        if len(self.crashes) > _MOST_CRASHES:
            self.say("gave_up", reason=reason, crashes=len(self.crashes))
            return False
        self.restarts += 1
        self.say("restarting", reason=reason, restarts=self.restarts)
        return True

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.told_to_end = self.told_to_end or time.monotonic()


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler, unlike SIG_IGN, leaves the child's status to be waited for."""


def handle_signals() -> None:
    """In the child, once somebody handles them: what ends it is let through from now on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _tell(descriptor: int) -> None:
    os.write(descriptor, b"r")
    os.close(descriptor)


def _exit_code(code: int, *, asked: bool) -> int:
    """0 where the end was asked for and the child drained; a signal of the child's is 1."""
    if asked and code in (0, -signal.SIGTERM, -signal.SIGINT):
        return 0
    return code if code >= 0 else 1
