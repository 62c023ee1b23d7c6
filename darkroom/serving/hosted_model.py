"""One loaded model that answers: decoding and running off the event loop, in batches."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import numpy as np

from darkroom.images import REQUESTED_IMAGES, ImageError
from darkroom.models.engine import Floats
from darkroom.models.prediction import Predictor
from darkroom.serving.answers import Classified, Options
from darkroom.serving.content import Content, JsonImages, read_json
from darkroom.serving.decoders import Decoders
from darkroom.serving.limits import LOADING_SECONDS
from darkroom.serving.monitoring import ServingMetrics

# --- batching ---
# Adaptive batching: images wait only while the network is busy, and then go together.
#
# A thread that has decoded an image runs the network at once, if fewer than the allowed number
# of threads do so already, and with it whatever waits. Else it leaves its image to them and
# decodes the next one. So nobody waits for a batch to fill, a single client loses nothing, and
# a lone image changes threads only once.


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


# --- hosted model ---

T = TypeVar("T")

_MILLISECONDS = 1000


class Pools:
    """The threads of a server, shared by all its models.

    Args:
        workers: networks that run at once; as many threads again prepare images meanwhile.
        waiting: further threads, which wait for the processes that decode.
        decoders: those processes; none: the threads decode themselves.
    """

    def __init__(self, workers: int, *, waiting: int = 0, decoders: Decoders | None = None) -> None:
        self.workers = workers
        self.decoders = decoders
        self.images = ThreadPoolExecutor(2 * workers + waiting, thread_name_prefix="images")
        self._loading = asyncio.Semaphore(2)
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="aside")

    def run_aside(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Run what is no request in a thread of its own, one after the other."""
        return asyncio.get_running_loop().run_in_executor(self._aside, work)

    def read_json(self, body: bytes) -> "asyncio.Future[JsonImages]":
        """What a large body of JSON names, parsed beside the event loop.

        Raises:
            HTTPException, DarkroomError: as `Decoders.read_json`.
        """
        read = self.decoders.read_json if self.decoders else read_json
        return asyncio.get_running_loop().run_in_executor(self.images, read, body)

    async def load(self, work: Callable[[], T]) -> T:
        """Load a model in a thread; at most two at a time, as each takes twice its memory.

        Raises:
            TimeoutError: it takes too long. Its thread cannot be ended, and is waited for no more.
        """
        async with self._loading:
            return await asyncio.wait_for(_in_thread(work), LOADING_SECONDS)

    def close(self) -> None:
        """Drop what waits; what runs has been answered, or takes longer than the end may."""
        for pool in (self.images, self._aside):
            pool.shutdown(wait=False, cancel_futures=True)
        if self.decoders:
            self.decoders.close()


@dataclass(frozen=True)
class Timing:
    """Of one request, in seconds; the longest of its images."""

    decode: float
    queue: float
    run: float

    @property
    def header(self) -> str:
        """As a Server-Timing header (W3C), in milliseconds."""
        parts = {"decode": self.decode, "queue": self.queue, "predict": self.run}
        return ", ".join(f"{name};dur={s * _MILLISECONDS:.2f}" for name, s in parts.items())


class HostedModel:
    """Classifies the images of requests with one bundle.

    Args:
        name: for the metrics.
        maximum_batch: images that are run together at most.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        name: str,
        pools: Pools,
        maximum_batch: int,
        metrics: ServingMetrics,
    ) -> None:
        self.predictor = predictor
        self.image_size = predictor.metadata.preprocessing.image_size
        self.version = predictor.metadata.version
        self._pools = pools
        self._decode_seconds = metrics.decode_seconds.observe
        name = metrics.model_label(name)
        self._images = metrics.images.labels(name)
        self._batcher = Batcher(
            predictor.probabilities,
            pool=pools.images,
            workers=pools.workers,
            maximum=maximum_batch,
            observe=_observer(metrics, name=name),
        )

    async def classify(self, content: Content, *, options: Options) -> tuple[Classified, Timing]:
        """The classes of every image, and where the time went.

        Raises:
            ImageError: an image cannot be used; of several, the message says which.
            DarkroomError: the network's output is not finite.
        """
        outcomes = await self._outcomes(content)
        self._images.inc(len(outcomes))
        timing = Timing(
            decode=max(outcome.prepared_in for outcome in outcomes),
            queue=max(outcome.queued_for for outcome in outcomes),
            run=max(outcome.ran_in for outcome in outcomes),
        )
        rows = np.stack([outcome.probabilities for outcome in outcomes])
        classified = Classified(
            probabilities=rows,
            best=[self.predictor.top_k(row, k=options.top_k) for row in rows],
            version=self.version,
            engine=self.predictor.engine.name,
            is_list=content.is_list,
            details=self._details(outcomes, timing=timing) if options.details else {},
        )
        return classified, timing

    async def _outcomes(self, content: Content) -> list[Outcome]:
        prepare: list[Callable[[], Floats]] = (
            [partial(self._prepare, image) for image in content.images]
            if content.arrays is None
            else [partial(_as_it_is, array) for array in content.arrays]
        )
        if len(prepare) == 1:
            return [await self._batcher.submit(prepare[0])]
        turn = asyncio.Semaphore(2 * self._pools.workers)  # one request is not all of them

        async def submit(one: Callable[[], Floats]) -> Outcome:
            async with turn:
                return await self._batcher.submit(one)

        found = await asyncio.gather(*map(submit, prepare), return_exceptions=True)
        for number, outcome in enumerate(found, 1):
            if isinstance(outcome, ImageError):
                raise ImageError(f"image {number}: {outcome}") from outcome
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in found if isinstance(outcome, Outcome)]

    def _prepare(self, image: bytes) -> Floats:
        started = time.perf_counter()
        if self._pools.decoders:
            how = self.predictor.metadata.preprocessing
            array = self._pools.decoders.prepare(image, how)
        else:
            array = self.predictor.prepare(image, limits=REQUESTED_IMAGES)
        self._decode_seconds(time.perf_counter() - started)
        return array

    def _details(self, outcomes: list[Outcome], *, timing: Timing) -> dict[str, object]:
        metadata = self.predictor.metadata
        return {
            "engine": self.predictor.engine.name,
            "architecture": metadata.architecture,
            "image_size": self.image_size,
            "batch_size": max(outcome.batch_size for outcome in outcomes),
            "decode_ms": round(timing.decode * _MILLISECONDS, 3),
            "queue_ms": round(timing.queue * _MILLISECONDS, 3),
            "predict_ms": round(timing.run * _MILLISECONDS, 3),
        }


def _in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """The work's result, from a thread of its own that the process does not wait for."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(cast("T", result))
        else:
            outcome.set_exception(error)

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # handed to whoever waits
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return outcome


def _as_it_is(array: Floats) -> Floats:
    return array


def _observer(metrics: ServingMetrics, *, name: str) -> Callable[[int, float], None]:
    seconds, sizes = metrics.run_seconds.labels(name).observe, metrics.batch_size.observe

    def observe(size: int, run_seconds: float) -> None:
        sizes(size)
        seconds(run_seconds)

    return observe
