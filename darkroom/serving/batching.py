"""Adaptive batching: images wait only while the network is busy, and then go together.

A thread that has decoded an image runs the network at once, if fewer than the allowed number
of threads do so already, and with it whatever waits. Else it leaves its image to them and
decodes the next one. So nobody waits for a batch to fill, a single client loses nothing, and
a lone image changes threads only once.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from darkroom.engines.protocol import Floats


@dataclass(frozen=True)
class Outcome:
    """What the network says about one image, and how long that took, in seconds."""

    probabilities: Floats
    """(C,)."""
    batch_size: int
    prepared_in: float
    queued_for: float
    ran_in: float


@dataclass
class _Waiting:
    """An image on its way through the threads."""

    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Outcome]"
    image: Floats | None = None
    prepared_in: float = 0.0
    since: float = 0.0


class Batcher:
    """Runs images through one network.

    Args:
        run: (N, 3, S, S) to (N, C) probabilities.
        pool: whose threads prepare images and run the network; more than `workers`, so that
            some prepare while others run.
        workers: batches that run at once.
        maximum: images in a batch.
        observe: told the size and the seconds of each batch, in one of the threads.
    """

    def __init__(
        self,
        run: Callable[[Floats], Floats],
        *,
        pool: Executor,
        workers: int,
        maximum: int,
        observe: Callable[[int, float], None],
    ) -> None:
        self._run = run
        self._pool = pool
        self._workers = workers
        self._maximum = maximum
        self._observe = observe
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._running = 0

    async def submit(self, prepare: Callable[[], Floats]) -> Outcome:
        """The outcome for the (3, S, S) image that `prepare` makes, in one of the threads.

        Raises:
            Exception: what `prepare` or `run` raised.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop, loop.create_future())
        self._pool.submit(self._work, prepare, waiting)
        return await waiting.future

    def _work(self, prepare: Callable[[], Floats], waiting: _Waiting) -> None:
        if waiting.future.done():  # its client has gone
            return
        started = time.perf_counter()
        try:
            waiting.image = prepare()
        except Exception as error:  # handed to whoever waits
            _tell([waiting], error)
            return
        waiting.since = time.perf_counter()
        waiting.prepared_in = waiting.since - started
        with self._lock:
            self._waiting.append(waiting)
            if self._running >= self._workers:
                return  # one of those that run takes it
            self._running += 1
        self._run_what_waits()

    def _run_what_waits(self) -> None:
        while True:
            with self._lock:
                batch = self._take()
                if not batch:
                    self._running -= 1
                    return
            self._run_batch(batch)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._maximum:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                batch.append(waiting)
        return batch

    def _run_batch(self, batch: Sequence[_Waiting]) -> None:
        started = time.perf_counter()
        try:
            rows = self._run(_stacked([w.image for w in batch if w.image is not None]))
        except Exception as error:  # handed to whoever waits
            if len(batch) == 1:
                _tell(batch, error)
                return
            for waiting in batch:  # the fault of one is not that of the others
                self._run_batch([waiting])
            return
        seconds = time.perf_counter() - started
        self._observe(len(batch), seconds)
        outcomes = [
            Outcome(row, len(batch), w.prepared_in, started - w.since, seconds)
            for w, row in zip(batch, rows, strict=True)
        ]
        _tell(batch, outcomes)


def _stacked(images: Sequence[Floats]) -> Floats:
    """(N, 3, S, S); a lone image, as most are, is not copied."""
    return images[0][np.newaxis] if len(images) == 1 else np.stack(images)


def _tell(batch: Sequence[_Waiting], outcome: Sequence[Outcome] | Exception) -> None:
    """Wake those who wait, in their event loop; it may have ended meanwhile."""
    with suppress(RuntimeError):
        batch[0].loop.call_soon_threadsafe(_set, batch, outcome)


def _set(batch: Sequence[_Waiting], outcome: Sequence[Outcome] | Exception) -> None:
    for position, waiting in enumerate(batch):
        if waiting.future.done():
            continue
        if isinstance(outcome, Exception):
            waiting.future.set_exception(outcome)
        else:
            waiting.future.set_result(outcome[position])
