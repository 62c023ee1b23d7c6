"""Starts the process that serves, and starts it again when it crashes.

The supervisor holds the listening socket and imports nothing heavy, so that it costs a few
megabytes and nothing that a request does can harm it. A crash of the serving process (a fault
in a native library, the kernel's out-of-memory killer) costs the requests that were under
way; the next ones wait in the socket's queue until a new process takes over.

The requests that were under way are named in the log, and refused once they are to blame.
As long as requests are, it never gives up: only where the process crashes again and again with
none under way, or does not get ready any more.
"""

import asyncio
import hashlib
import json
import mmap
import os
import select
import signal
import struct
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from darkroom.base.processes import PARENT_VARIABLE

# --- journal ---
# Which models a server knows, kept where a crash of the serving process cannot reach it.
#
# An anonymous file that the supervisor holds open: it needs no writable file system.


class Journal:
    """Made before the serving process is started, used within it."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("darkroom-models")
        else:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())

    def write(self, models: Mapping[str, str]) -> None:
        """Keep the registered models, by name, and where they lie."""
        content = json.dumps(dict(models)).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)

    def read(self) -> dict[str, str]:
        """What was kept last; nothing at first, or where a crash cut it off."""
        content = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        try:
            models: dict[str, str] = json.loads(content or b"{}")
        except ValueError:
            return {}
        return models


# --- witness ---
# What the process that serves was doing when it crashed, and whether it still lives.
#
# Memory that the supervisor shares with it: the digests of the requests under way, and a count
# that goes up as long as its event loop runs. It outlives the crash.

_DIGEST_BYTES = 32
_SLOTS = 256
"""Requests whose digests are kept at once; more are answered, but not witnessed."""
_NONE = bytes(_DIGEST_BYTES)
_COUNT = struct.Struct("<Q")
_BEAT_SECONDS = 0.5
_LARGE_BYTES = 2**20
_SUSPECTS = 1024
_REMEMBERED_SECONDS = 3600
_CRASHES_TO_REFUSE = 2


class Witness:
    """Shared by the supervisor, which reads, and the process that it forks, which writes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _COUNT.size + _SLOTS * _DIGEST_BYTES)
        self._free = list(range(_SLOTS))
        self._suspects: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def clear(self) -> None:
        """Forget the requests: a new process begins."""
        self._memory[_COUNT.size :] = bytes(_SLOTS * _DIGEST_BYTES)
        self._free = list(range(_SLOTS))

    def under_way(self) -> list[str]:
        """The digests, in hexadecimal, of the requests that were begun and not answered."""
        found = (
            self._memory[start : start + _DIGEST_BYTES] for start in map(_start, range(_SLOTS))
        )
        return sorted({digest.hex() for digest in found if digest != _NONE})

    @property
    def beats(self) -> int:
        """How often the event loop has run."""
        return int(_COUNT.unpack_from(self._memory)[0])

    def suspect(self, digests: list[str]) -> None:
        """Note that these were under way in a crash.

        One that was alone is to blame. Of several, those that are under way in another crash
        are: what a bystander sends is not refused at once.
        """
        weight = _CRASHES_TO_REFUSE if len(digests) == 1 else 1
        now = time.monotonic()
        for digest in map(bytes.fromhex, digests):
            crashes, when = self._suspects.pop(digest, (0, now))
            if now - when > _REMEMBERED_SECONDS:
                crashes = 0
            self._suspects[digest] = crashes + weight, now
        while len(self._suspects) > _SUSPECTS:
            self._suspects.popitem(last=False)

    def is_refused(self, digest: bytes) -> bool:
        """Whether a request is to blame for a crash of the last hour."""
        crashes, when = self._suspects.get(digest, (0, 0.0))
        return crashes >= _CRASHES_TO_REFUSE and time.monotonic() - when < _REMEMBERED_SECONDS

    @contextmanager
    def watch(self, digest: bytes) -> Iterator[None]:
        """While the block runs, a request is under way."""
        if not self._free:
            yield
            return
        slot = self._free.pop()
        start = _start(slot)
        self._memory[start : start + _DIGEST_BYTES] = digest
        try:
            yield
        finally:
            self._memory[start : start + _DIGEST_BYTES] = _NONE
            self._free.append(slot)

    async def beat(self) -> None:
        """Count as long as the event loop runs."""
        while True:
            _COUNT.pack_into(self._memory, 0, self.beats + 1)
            await asyncio.sleep(_BEAT_SECONDS)


async def digest_of(body: bytes) -> bytes:
    """SHA-256; of a large body in a thread."""
    if len(body) > _LARGE_BYTES:
        return (await asyncio.to_thread(hashlib.sha256, body)).digest()
    return hashlib.sha256(body).digest()


def _start(slot: int) -> int:
    return _COUNT.size + slot * _DIGEST_BYTES


# --- supervisor ---

_MAX_CRASHES = 5
_WITHIN_SECONDS = 60
"""More crashes in so long with no request under way, or starts in a row that do not get
ready, and the supervisor gives up: something is wrong for good."""

_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_LOOKS_WITHOUT_LIFE = 40
"""After which a process whose event loop does not run is killed: 20 s. Looks, not the clock:
what stops both, as a closed laptop does, is no fault of the process."""
_SECONDS_TO_END_WITHOUT_LIFE = 3
_DIGESTS_SHOWN = 8
_SECONDS_TO_END = 28
"""After SIGTERM; SageMaker kills the container after 30."""

_ENDING = (signal.SIGTERM, signal.SIGINT)

Serve = Callable[[int, Callable[[], None]], int]
"""Serves until it is told to end. Given how often it was started again, and what to call once it
is ready; it calls `handle_signals`, and returns the exit code."""

Say = Callable[..., None]
"""Writes an event with its fields to the log."""


def supervise(serve: Serve, *, say: Say, witness: Witness | None = None) -> int:
    """Run `serve` in a child process until it ends by itself or this process is told to end.

    A first child that ends before it was ready is not started again: its mistake would be the
    same.

    Args:
        witness: shared with `serve`; says what was under way, and whether it lives.

    Returns:
        The exit code: the child's, or 1 where it crashed too often.
    """
    return _Supervisor(serve, say=say, witness=witness or Witness()).run()


@dataclass
class _Child:
    pid: int
    ready: int
    """Descriptor that is readable once the child is ready, or gone."""
    is_told: bool = False
    beats: int = 0
    looks: int = 0
    """Since its event loop was last seen running."""

    def end(self, number: int) -> None:
        """Send a signal; fine if it has ended, since waitpid will tell."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclass
class _Supervisor:
    serve: Serve
    say: Say
    witness: Witness
    restarts: int = 0
    crashes: list[float] = field(default_factory=list)
    """When the latest were that no request was under way in."""
    failed_starts: int = 0
    """In a row."""
    pause: float = _PAUSE_SECONDS
    last_crash: float = float("-inf")
    told_to_end: float | None = None
    parent: int = field(default_factory=os.getppid)

    def run(self) -> int:
        wakeup, wake = os.pipe()
        os.set_blocking(wake, False)
        previous = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        ending = [*_ENDING, signal.SIGHUP]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup
            ending.remove(signal.SIGHUP)
        handlers = {number: signal.signal(number, self._end) for number in ending}
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _do_nothing)
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
            is_first = not self.restarts and not was_ready
            if self.told_to_end is not None or is_first or code == 0:
                return _exit_code(code, asked=self.told_to_end is not None)
            if not self._may_restart(code, was_ready=was_ready):
                return 1
            self._rest(wakeup)
            if self.told_to_end is not None:
                return 0

    def _start(self, wakeup: int) -> _Child:
        ready, tell_ready = os.pipe()
        self.witness.clear()
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
            # A terminal that is closed sends it to all processes here; this one is told by the
            # supervisor, and answers what is under way.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
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
            is_ready = self._look_at(child)
            if self._must_end():
                if not child.is_told:
                    child.end(signal.SIGTERM)
                    child.end(signal.SIGCONT)  # one that was stopped hears nothing
                    child.is_told = True
                if self._is_overdue(child, is_ready=is_ready):
                    child.end(signal.SIGKILL)
            elif child.looks > _LOOKS_WITHOUT_LIFE:
                self.say("no_sign_of_life", seconds=_LOOKS_WITHOUT_LIFE * _LOOK_SECONDS)
                child.end(signal.SIGKILL)
            if select.select([wakeup], [], [], _LOOK_SECONDS)[0]:
                os.read(wakeup, 4096)

    def _look_at(self, child: _Child) -> bool:
        """Note whether its event loop runs; whether it is ready, and has to."""
        beats = self.witness.beats
        is_ready = bool(select.select([child.ready], [], [], 0)[0])
        if beats != child.beats or not is_ready:
            child.beats, child.looks = beats, 0
        else:
            child.looks += 1
        return is_ready

    def _rest(self, wakeup: int) -> None:
        """Wait for longer after each crash that follows soon; the end is not waited with."""
        until = time.monotonic() + self.pause
        while self.told_to_end is None and (left := until - time.monotonic()) > 0:
            if select.select([wakeup], [], [], left)[0]:
                os.read(wakeup, 4096)

    def _must_end(self) -> bool:
        watched = os.environ.get(PARENT_VARIABLE)
        if self.told_to_end is None and watched and os.getppid() != int(watched):
            self.told_to_end = time.monotonic()
        return self.told_to_end is not None

    def _is_overdue(self, child: _Child, *, is_ready: bool) -> bool:
        """Whether its time to end is over: only who lives, and may be answering, gets long."""
        has_life = child.looks < _SECONDS_TO_END_WITHOUT_LIFE / _LOOK_SECONDS
        seconds = _SECONDS_TO_END if is_ready and has_life else _SECONDS_TO_END_WITHOUT_LIFE
        return time.monotonic() - (self.told_to_end or 0) > seconds

    def _may_restart(self, code: int, *, was_ready: bool) -> bool:
        now = time.monotonic()
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        under_way = self.witness.under_way()
        self.witness.suspect(under_way)
        self.failed_starts = 0 if was_ready else self.failed_starts + 1
        last = self.last_crash
        self.last_crash = now
        is_soon = now - last < _WITHIN_SECONDS
        self.pause = min(2 * self.pause, _MAX_PAUSE_SECONDS) if is_soon else _PAUSE_SECONDS
        recent = [moment for moment in self.crashes if now - moment < _WITHIN_SECONDS]
        self.crashes = recent if under_way else [*recent, now]
        if max(len(self.crashes), self.failed_starts) > _MAX_CRASHES:
            self.say("gave_up", reason=reason, crashes=len(self.crashes))
            return False
        self.restarts += 1
        self.say("restarting", reason=reason, restarts=self.restarts)
        for digest in under_way[:_DIGESTS_SHOWN]:
            self.say("was_under_way", sha256=digest, requests=len(under_way))
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


# --- program ---


@dataclass(frozen=True)
class Task:
    """What is to be served, and how."""

    place: Path
    """A bundle; or, with several models, the folder that they lie below."""
    is_multi_model: bool
    in_container: bool
    flags: Mapping[str, object]
    """Settings by name; None: not given."""
