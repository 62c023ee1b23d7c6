"""Work on many items in a few threads, stopped at once when it is interrupted."""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_concurrently(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int
) -> Iterator[_Result]:
    """Yield `work(item)` for each item, in the order in which they finish.

    Only a few items are taken ahead. The first exception ends it: what is running is
    waited for, the rest is never started.
    """
    waiting = iter(items)
    running: set[Future[_Result]] = set()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            while True:
                ahead = itertools.islice(waiting, 2 * threads - len(running))
                running |= {pool.submit(work, item) for item in ahead}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def map_in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int
) -> Generator[_Result, None, None]:
    """Yield `work(item)` for each item, in the order of the items.

    Only a few items are taken ahead. The first exception ends it, as in `map_concurrently`.
    """
    waiting = iter(items)
    running: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            while True:
                ahead = itertools.islice(waiting, 2 * threads - len(running))
                running.extend(pool.submit(work, item) for item in ahead)
                if not running:
                    return
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def batches(items: Sequence[_Item], *, size: int) -> Iterator[Sequence[_Item]]:
    """Cut a sequence into runs of `size`; the last may be shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))
