"""Processes that decode images and may be killed: what a hostile image costs, it costs them.

    server ── source ─┬─ decoder      one image, or body of JSON, at a time, through shared memory
                      └─ decoder      with limits on memory and processor time

The source is forked from the server's process while that has one thread and no network yet,
and forks the decoders in turn: a few milliseconds each, with Pillow imported already. It ends
with the server, and takes the decoders with it.
"""

import json
import math
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from darkroom.images import (
    REQUESTED_IMAGES,
    ImageError,
    MemoryShortageError,
    Preprocessing,
    prepare,
)
from darkroom.serving.content import read_json

JSON_FACTOR = 4
"""Memory that parsing takes over the size of a body that holds base64: its text, the text of
the image, and what that stands for."""

GRANTED_BYTES = 32 * 2**20
"""That a decoder may take without asking: enough for pictures of two megapixels."""

RESULT_BYTES = 3 * 1024 * 1024 * 4
"""Of the largest array that a network takes."""

_SLACK_BYTES = 24 * 2**20
"""For Python itself and what the allocator keeps."""
_LENGTH = struct.Struct("<I")
_MAX_MESSAGE = 2**16
_ORDER = struct.Struct("<cq")
_ANSWER = struct.Struct("<q")
_FORK, _STATUS = b"F", b"S"


class SourceEndedError(OSError):
    """The process that makes decoders is gone."""


class DecoderSource:
    """Makes decoders; to be made while there is one thread. Safe to share between threads."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:  # the source itself, which never returns
            try:
                _close_all_but(theirs.fileno())
                _make_decoders(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def start(self, *descriptors: int) -> int:
        """A new decoder's process id, given its channel and its memory.

        Raises:
            OSError: the source is gone, or has no process to give.
        """
        with self._lock:
            try:
                socket.send_fds(self._control, [_ORDER.pack(_FORK, 0)], descriptors)
            except ConnectionError as error:
                raise SourceEndedError("the process that makes decoders has ended") from error
            pid = self._answer()
        if pid <= 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def status(self, pid: int) -> int:
        """The exit code of a decoder that has ended: negative for a signal.

        Raises:
            OSError: the source is gone.
        """
        with self._lock:
            self._control.sendall(_ORDER.pack(_STATUS, pid))
            return self._answer()

    def close(self) -> None:
        """End the source and all decoders."""
        self._control.close()

    def _answer(self) -> int:
        content = self._control.recv(_ANSWER.size)
        if len(content) < _ANSWER.size:
            raise SourceEndedError("the process that makes decoders has ended")
        return int(_ANSWER.unpack(content)[0])


def send_message(channel: socket.socket, content: dict[str, Any]) -> None:
    """Send a small JSON object with its length before it."""
    text = json.dumps(content).encode()
    channel.sendall(_LENGTH.pack(len(text)) + text)


def receive_message(channel: socket.socket) -> dict[str, Any] | None:
    """The other side's next message; None: it is gone.

    Raises:
        TimeoutError: nothing came in the channel's time.
    """
    content = channel.recv(_MAX_MESSAGE)  # one at a time is under way, mostly whole
    while len(content) < _LENGTH.size or len(content) < _whole(content):
        more = channel.recv(_MAX_MESSAGE)
        if not more:
            return None
        content += more
    message: dict[str, Any] = json.loads(content[_LENGTH.size :])
    return message


def _whole(content: bytes) -> int:
    return _LENGTH.size + int(_LENGTH.unpack_from(content)[0])


def _make_decoders(control: socket.socket) -> None:
    """Serve the orders of a `DecoderSource` until it is closed, or gone."""
    from PIL import Image

    for number in (signal.SIGTERM, signal.SIGINT):  # a terminal sends them to all
        signal.signal(number, signal.SIG_IGN)
    Image.init()
    pids = set[int]()
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, _ORDER.size, 2)
        if len(order) < _ORDER.size:
            break
        kind, pid = _ORDER.unpack(order)
        if kind == _STATUS:
            pids.discard(pid)
            control.sendall(_ANSWER.pack(_status_of(pid)))
            continue
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if not pid:
            try:
                control.close()
                _decode_until_the_end(*descriptors)
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            pids.add(pid)
        control.sendall(_ANSWER.pack(pid))
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _status_of(pid: int) -> int:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 0


def _decode_until_the_end(channel_descriptor: int, memory_descriptor: int) -> None:
    _be_the_first_to_be_killed()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold what users sent
    channel = socket.socket(fileno=channel_descriptor)
    with mmap.mmap(memory_descriptor, 0) as memory:
        _limit_memory(GRANTED_BYTES + len(memory))
        while (order := receive_message(channel)) is not None:
            answer = _decode(order, channel=channel, memory=memory)
            send_message(channel, {**answer, "used": time.process_time()})


def _decode(order: dict[str, Any], *, channel: socket.socket, memory: mmap.mmap) -> dict[str, Any]:
    """The answer to an order: how an image is prepared, or none for a body of JSON.

    The array lies in the memory behind the room for what was sent, the images of a body at its
    beginning.
    """
    granted = GRANTED_BYTES

    def reserve(needed: int) -> None:
        nonlocal granted
        if needed > granted:
            send_message(channel, {"needs": needed})
            if receive_message(channel) is None:
                os._exit(0)
            granted = needed
            _limit_memory(granted + len(memory))

    how, size = order["how"], order["size"]
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + order["seconds"])
    try:
        if how is None:
            reserve(JSON_FACTOR * size)
            return _put_images(memory, size=size)
        array = prepare(
            memory[:size], _preprocessing(how), limits=REQUESTED_IMAGES, reserve=reserve
        )
    except HTTPException as error:
        return {"refused": error.detail[:1000], "status": error.status_code}
    except ImageError as error:
        return {"refused": str(error)[:1000]}
    except (MemoryShortageError, MemoryError) as error:
        if _can_be_had(granted):
            return {"refused": "it takes more memory than others of its kind and size do"}
        return {"short": str(error) or "not enough memory to read the body; try again later"}
    except Exception as error:  # whatever it is, the server's log has to name it
        return {"failed": repr(error)[:1000]}
    start = len(memory) - RESULT_BYTES
    memory[start : start + array.nbytes] = array.data.cast("B")
    return {"shape": array.shape}


def _put_images(memory: mmap.mmap, *, size: int) -> dict[str, Any]:
    """Parse a body, and put its images, which are smaller, where it was."""
    found = read_json(memory[:size])
    memory.seek(0)
    for image in found.images:
        memory.write(image)
    return {"urls": found.urls, "sizes": [*map(len, found.images)], "is_list": found.is_list}


@cache
def _preprocessing(text: str) -> Preprocessing:
    return Preprocessing.model_validate_json(text)


def _limit_memory(extra: int) -> None:
    """Let the process have so many bytes beside those that it has."""
    with suppress(OSError, ValueError):  # where the system counts otherwise
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * mmap.PAGESIZE + extra + _SLACK_BYTES)


def _limit(what: int, value: int) -> None:
    """Set a limit, or the one that was set for all processes here, if that is lower."""
    _, hard = resource.getrlimit(what)
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (soft, hard))


def _can_be_had(size: int) -> bool:
    try:
        np.empty(size, dtype=np.uint8)
    except MemoryError:
        return False
    return True


def _be_the_first_to_be_killed() -> None:
    """Where memory ends, let the kernel kill a decoder rather than the server."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _close_all_but(descriptor: int) -> None:
    """Beside the standard ones: the listening socket and pipes are the server's."""
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, max(256, os.sysconf("SC_OPEN_MAX")))
