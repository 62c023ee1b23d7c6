"""What the process that serves was doing when it crashed, and whether it still lives.

Memory that the supervisor shares with it: the digests of the requests under way, and a count
that goes up as long as its event loop runs. It outlives the crash.
"""

import asyncio
import hashlib
import mmap
import struct
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

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
