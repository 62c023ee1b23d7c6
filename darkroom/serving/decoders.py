"""Decoding images, and bodies that hold them, so that no client imposes its costs on others.

Each image, and each large body of JSON, is decoded in a process of its own
(decoder_process.py). Most take some milliseconds. One that takes longer, or much memory, leaves
the quick lane: its process gets a low priority, and another one takes its place, so that the
next image finds the processor and a decoder free. Memory is granted before it is taken, from
one budget. What takes too much processor time is ended; what ended a decoder is known by its
digest, and refused when it comes again.
"""

import hashlib
import mmap
import os
import signal
import socket
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np
from starlette.exceptions import HTTPException

from darkroom.base.errors import DarkroomError
from darkroom.images import ImageError, MemoryShortageError, Preprocessing
from darkroom.models.engine import Floats
from darkroom.serving.content import JsonImages
from darkroom.serving.decoder_process import (
    RESULT_BYTES,
    DecoderSource,
    SourceEndedError,
    receive_message,
    send_message,
)
from darkroom.serving.limits import DECODING_SECONDS, refused

QUICK_SECONDS = 0.05
"""Of processor time, in which an image of usual size is decoded."""

WAITING_SECONDS = 20
"""For memory, or for the turn of an image that takes long."""

_SLOW_PER_WORKER = 4
_LESS_PRIORITY = 10
"""Steps of niceness: a ninth of the processor where others want it."""

_MAX_SECONDS = 50
"""From the start of an image that takes long: SageMaker waits 60 s for an answer."""

_PROCESS_CLOCK = 2  # clock_getcpuclockid(3): which clock of a process, below its inverted id
_KNOWN = 1024
_LARGE_BYTES = 2**20

T = TypeVar("T")
Message = dict[str, Any]

Note = Callable[..., None]
"""Writes an event with its fields to the log."""


class BusyError(DarkroomError):
    """Nothing is wrong with the image, but the server cannot decode it at present."""


class NeverFitsError(ImageError):
    """Decoding takes more than the server may take for all images together."""


@dataclass
class Decoder:
    """One process."""

    pid: int
    channel: socket.socket
    memory: mmap.mmap
    used_before: float = 0.0
    """Processor time, in seconds, before the image that it has now."""
    is_slow: bool = False
    """Of low priority, for good: the system takes no priority back."""

    def is_alive(self) -> bool:
        """Whether one that has nothing to do is still there."""
        self.channel.settimeout(0)
        try:
            return bool(self.channel.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def answer(self, *, until: float) -> Message | None:
        """Its next message; None: it has ended.

        Raises:
            TimeoutError: there is none in time.
        """
        self.channel.settimeout(max(0.001, until - time.monotonic()))
        try:
            return receive_message(self.channel)
        except ConnectionError:
            return None

    @property
    def processor_seconds(self) -> float:
        """That it has taken so far; infinite where the system does not say."""
        try:
            return time.clock_gettime(~self.pid << 3 | _PROCESS_CLOCK)
        except (OSError, OverflowError):
            return float("inf")

    def slow_down(self) -> None:
        """Leave the processor to the others."""
        self.is_slow = True
        with suppress(OSError):  # it may have ended
            if self.pid:
                niceness = os.getpriority(os.PRIO_PROCESS, 0) + _LESS_PRIORITY
                os.setpriority(os.PRIO_PROCESS, self.pid, niceness)

    def kill(self) -> None:
        """End it."""
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of what belongs to it here."""
        self.channel.close()
        self.memory.close()


class MemoryBudget:
    """Bytes that are granted in the order in which they were asked for."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, size: int, *, seconds: float) -> bool:
        """Whether they could be had in time; who gets them gives them back."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                if not self._changed.wait_for(
                    lambda: self._waiting[0] is ticket and self._free >= size, seconds
                ):
                    return False
                self._free -= size
                return True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give_back(self, size: int) -> None:
        """Let others have them."""
        with self._changed:
            self._free += size
            self._changed.notify_all()


@dataclass
class _Job:
    """One image, or body, on its way."""

    content: bytes
    how: str | None
    """A `Preprocessing` as JSON; none: the content is a body of JSON."""
    is_quick: bool = True
    granted: int = 0
    has_slow_turn: bool = False


@dataclass
class Decoders:
    """A server's decoders. Safe to share between threads.

    Args:
        source: makes the processes.
        workers: as many images are decoded at full speed at once as this, twice.
        memory: bytes that decoding may take, for all images together.
        content_bytes: of the largest encoded image.
        note: told of decoders that ended over an image.
        on_source_ended: called where no decoder can be made any more.
    """

    source: DecoderSource
    workers: int
    memory: int
    content_bytes: int
    note: Note = lambda event, **fields: None
    on_source_ended: Callable[[], None] = lambda: None
    seconds: int = DECODING_SECONDS
    _idle: list[Decoder] = field(default_factory=list)
    _known: OrderedDict[bytes, str] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._budget = MemoryBudget(self.memory)
        self._quick = threading.Semaphore(2 * self.workers)
        self._slow = threading.Semaphore(max(4, _SLOW_PER_WORKER * self.workers))

    def prepare(self, content: bytes, preprocessing: Preprocessing) -> Floats:
        """An encoded image to the (3, S, S) array that the network sees.

        Raises:
            ImageError: it cannot be used.
            BusyError, MemoryShortageError: it may be used another time.
        """
        return self._work(_Job(content, _as_text(preprocessing)), read=_array)

    def read_json(self, body: bytes) -> JsonImages:
        """The images that a body of JSON names.

        Raises:
            HTTPException: 4xx says what is wrong with it.
            ImageError: parsing it takes too much.
            BusyError, MemoryShortageError: it may be parsed another time.
        """
        return self._work(_Job(body, None), read=_json_images)

    def close(self) -> None:
        """End all of them."""
        self.source.close()

    def _work(self, job: _Job, *, read: Callable[[Message, mmap.mmap], T]) -> T:
        """What a decoder makes of it; `read` takes that from its message and its memory."""
        if self._known and (reason := self._known.get(_digest(job.content))):
            raise ImageError(f"this was refused before: {reason}")
        self._quick.acquire()
        try:
            while True:
                if found := self._try(job, read=read):
                    return found[0]
        finally:
            self._leave(job)

    def _try(self, job: _Job, *, read: Callable[[Message, mmap.mmap], T]) -> tuple[T] | None:
        """The one that `read` returns; None: it has to be begun again, now that it is its turn."""
        with self._decoder(job) as decoder:
            decoder.memory[: len(job.content)] = job.content
            order: Message = {"size": len(job.content), "how": job.how, "seconds": self.seconds}
            began = time.monotonic()
            until = time.monotonic() + QUICK_SECONDS
            if not job.is_quick:
                until = time.monotonic() + _MAX_SECONDS
            with suppress(ConnectionError):
                send_message(decoder.channel, order)
            while True:
                try:
                    message = decoder.answer(until=until)
                except TimeoutError:
                    if not job.is_quick:
                        raise BusyError("the image was not decoded in time") from None
                    used = decoder.processor_seconds - decoder.used_before
                    if 0 <= used < QUICK_SECONDS and time.monotonic() - began < self.seconds:
                        until = time.monotonic() + QUICK_SECONDS  # others keep it waiting
                        continue
                    until = time.monotonic() + _MAX_SECONDS
                    if not self._slow_down(job, decoder=decoder):
                        return None
                    continue
                if message is None:
                    raise self._over(job, decoder=decoder)
                if "needs" not in message:
                    self._check(message, decoder=decoder)
                    return (read(message, decoder.memory),)
                if not self._grant(job, needed=message["needs"], decoder=decoder):
                    return None
                until = time.monotonic() + _MAX_SECONDS

    def _grant(self, job: _Job, *, needed: int, decoder: Decoder) -> bool:
        """Whether the decoder goes on with so many bytes; else it has to be begun again."""
        if needed > self._budget.total:
            raise NeverFitsError(
                f"decoding it takes about {needed / 2**20:.0f} MiB, and this server may take "
                f"{self._budget.total / 2**20:.0f} MiB for that (--decode-memory-mb): send a "
                "smaller image"
            )
        if job.is_quick and not self._slow_down(job, decoder=decoder):
            return False
        if not self._budget.take(needed, seconds=WAITING_SECONDS):
            raise BusyError("the memory for images of this size is taken; try again later")
        job.granted += needed
        with suppress(ConnectionError):
            send_message(decoder.channel, {})
        return True

    def _slow_down(self, job: _Job, *, decoder: Decoder) -> bool:
        """Leave the quick lane. Whether the decoder may go on: its kind may be too many."""
        decoder.slow_down()
        job.is_quick = False
        self._quick.release()
        if self._slow.acquire(blocking=False):
            job.has_slow_turn = True
            return True
        decoder.kill()
        if not self._slow.acquire(timeout=WAITING_SECONDS):
            raise BusyError("too many images that take long are being decoded; try again later")
        job.has_slow_turn = True
        return False

    def _leave(self, job: _Job) -> None:
        if job.is_quick:
            self._quick.release()
        if job.has_slow_turn:
            self._slow.release()

    @contextmanager
    def _decoder(self, job: _Job) -> Iterator[Decoder]:
        """One that is idle, or a new one; it is kept for others if it can be."""
        decoder = self._take()
        if not job.is_quick:
            decoder.slow_down()
        is_usable = False
        try:
            yield decoder
            is_usable = not decoder.is_slow
        except NeverFitsError:
            raise  # it waits for an answer
        except (ImageError, HTTPException):
            is_usable = bool(decoder.pid) and not decoder.is_slow
            raise
        finally:
            if not is_usable:
                decoder.kill()
                self._end(decoder)
            self._budget.give_back(job.granted)  # only now: its memory is free once it is gone
            job.granted = 0
            if is_usable:
                if len(job.content) > _LARGE_BYTES and hasattr(mmap, "MADV_REMOVE"):
                    decoder.memory.madvise(mmap.MADV_REMOVE)
                with self._lock:
                    self._idle.append(decoder)

    def _take(self) -> Decoder:
        while True:
            with self._lock:
                if not self._idle:
                    break
                decoder = self._idle.pop()
            if decoder.is_alive():
                return decoder
            self._end(decoder)  # no image's fault: it had none
        ours, theirs = socket.socketpair()
        with theirs, _shared_memory(self.content_bytes + RESULT_BYTES) as descriptor:
            memory = mmap.mmap(descriptor, 0)
            try:
                pid = self.source.start(theirs.fileno(), descriptor)
            except OSError as error:
                ours.close()
                memory.close()
                if isinstance(error, SourceEndedError):
                    self.on_source_ended()
                raise BusyError(f"no process to decode the image in: {error}") from error
        return Decoder(pid, ours, memory)

    def _end(self, decoder: Decoder) -> int:
        """Its exit code, once it is gone."""
        code = 0
        if decoder.pid:
            with suppress(OSError):
                code = self.source.status(decoder.pid)
            decoder.pid = 0
            decoder.close()
        return code

    def _over(self, job: _Job, *, decoder: Decoder) -> DarkroomError:
        """What to say of an image over which a decoder ended."""
        code = self._end(decoder)
        digest = _digest(job.content)
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.note("decoder_ended", reason=reason, sha256=digest.hex(), bytes=len(job.content))
        if code == -signal.SIGKILL:  # the kernel's, where memory ends; or somebody's
            return MemoryShortageError("not enough memory to decode the image; try again later")
        if code == -signal.SIGXCPU:
            known = f"decoding it takes longer than {self.seconds} s"
        else:
            known = f"it ended the process that decoded it ({reason})"
        with self._lock:
            self._known[digest] = known
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return ImageError(known)

    def _check(self, message: Message, *, decoder: Decoder) -> None:
        """Raise what it says, if the decoder has made nothing of it."""
        decoder.used_before = message["used"]
        if reason := message.get("refused"):
            status = message.get("status")
            raise refused(reason, status=status) if status else ImageError(reason)
        if reason := message.get("short"):
            self.note("out_of_memory", reason=reason)
            raise MemoryShortageError(reason)
        if reason := message.get("failed"):
            raise RuntimeError(f"decoding failed: {reason}")


def _array(message: Message, memory: mmap.mmap) -> Floats:
    shape = tuple(message["shape"])
    start = len(memory) - RESULT_BYTES
    flat = np.frombuffer(memory, np.float32, int(np.prod(shape)), start)
    return flat.reshape(shape).copy()


def _json_images(message: Message, memory: mmap.mmap) -> JsonImages:
    memory.seek(0)
    images = tuple(memory.read(size) for size in message["sizes"])
    return JsonImages(urls=tuple(message["urls"]), images=images, is_list=message["is_list"])


@contextmanager
def _shared_memory(size: int) -> Iterator[int]:
    """A descriptor of memory that two processes may map."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("darkroom-image")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


@cache
def _as_text(preprocessing: Preprocessing) -> str:
    return preprocessing.model_dump_json()


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
