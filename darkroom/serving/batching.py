"""Adaptive batching: images wait only while the network is busy, and then go together.

A free worker takes at once whatever waits, one image if it is one: nobody waits for a batch
to fill, so that a single client loses nothing. While all workers are busy, what comes in the
meantime forms the next batch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from darkroom.engines.protocol import Floats


@dataclass(frozen=True)
class Outcome:
    """What the network says about one image, and how long that took."""

    probabilities: Floats
    """(C,)."""
    batch_size: int
    queued_seconds: float
    run_seconds: float


@dataclass(frozen=True)
class _Waiting:
    image: Floats
    since: float
    future: asyncio.Future[Outcome]


class Batcher:
    """Runs images through one network. Belongs to one event loop.

    Args:
        run: (N, 3, S, S) to (N, C) probabilities; called in `pool`.
        workers: batches that run at once.
        maximum: images in a batch.
        observe: told the size and the seconds of each batch.
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
        self._waiting: deque[_Waiting] = deque()
        self._running = 0

    async def submit(self, image: Floats) -> Outcome:
        """The outcome for one (3, S, S) image.

        Raises:
            Exception: what `run` raised.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(image, since=time.perf_counter(), future=future))
        self._start()
        return await future

    def _start(self) -> None:
        while self._running < self._workers and (batch := self._take()):
            self._running += 1
            work = asyncio.get_running_loop().run_in_executor(self._pool, self._work, batch)
            work.add_done_callback(self._finish)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._maximum:
            waiting = self._waiting.popleft()
            if not waiting.future.done():  # its client may have gone
                batch.append(waiting)
        return batch

    def _work(self, batch: list[_Waiting]) -> tuple[list[_Waiting], list[Outcome] | Exception]:
        """In the pool: run a batch."""
        started = time.perf_counter()
        try:
            rows = self._run(np.stack([waiting.image for waiting in batch]))
        except Exception as error:  # handed to those who wait
            return batch, error
        seconds = time.perf_counter() - started
        return batch, [
            Outcome(row, len(batch), started - waiting.since, seconds)
            for waiting, row in zip(batch, rows, strict=True)
        ]

    def _finish(
        self, work: "asyncio.Future[tuple[list[_Waiting], list[Outcome] | Exception]]"
    ) -> None:
        self._running -= 1
        if work.cancelled():  # the server ends
            return
        batch, outcomes = work.result()
        if isinstance(outcomes, Exception):
            _fail(batch, error=outcomes)
        else:
            _deliver(batch, outcomes=outcomes)
            self._observe(len(batch), outcomes[0].run_seconds)
        self._start()


def _deliver(batch: list[_Waiting], *, outcomes: list[Outcome]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if not waiting.future.done():
            waiting.future.set_result(outcome)


def _fail(batch: list[_Waiting], *, error: Exception) -> None:
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(error)
