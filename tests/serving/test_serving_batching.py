"""Images wait only while the network is busy, and then go together."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from darkroom.models.engine import Floats
from darkroom.serving.hosted_model import Batcher, Outcome

IMAGE = np.zeros((3, 2, 2), dtype=np.float32)


class Network:
    """Answers each image with its first value; waits where it is told to."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, batch: Floats) -> Floats:
        self.sizes.append(len(batch))
        self.entered.set()
        assert self.go_on.wait(10)
        if np.isnan(batch).any():
            raise RuntimeError("not finite")
        return batch[:, 0, 0, :1]


def batching(
    scenario: Callable[[Batcher], object], network: Network, *, workers: int = 1, maximum: int = 4
) -> list[int]:
    """Run a scenario on a batcher; the sizes of all batches that were observed."""
    observed: list[int] = []

    async def run() -> None:
        with ThreadPoolExecutor(2 * workers) as pool:
            batcher = Batcher(
                network,
                pool=pool,
                workers=workers,
                maximum=maximum,
                observe=lambda size, seconds: observed.append(size),
            )
            await scenario(batcher)

    asyncio.run(run())
    return observed


def image(value: float) -> Callable[[], Floats]:
    """Prepares an image of one value."""
    return lambda: IMAGE + np.float32(value)


def values(outcomes: list[Outcome]) -> list[float]:
    return [float(outcome.probabilities[0]) for outcome in outcomes]


def test_a_single_image_waits_for_nobody() -> None:
    network = Network()

    async def one_after_the_other(batcher: Batcher) -> None:
        assert values([await batcher.submit(image(n)) for n in range(3)]) == [0, 1, 2]

    assert batching(one_after_the_other, network) == [1, 1, 1]


def test_what_comes_while_the_network_is_busy_goes_together() -> None:
    network = Network()
    network.go_on.clear()

    async def at_once(batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher.submit(image(n))) for n in range(7)]
        await asyncio.to_thread(network.entered.wait, 10)
        while len(batcher._waiting) < 6:
            await asyncio.sleep(0.001)
        network.go_on.set()
        outcomes = await asyncio.gather(*waiting)
        assert values(outcomes) == list(range(7))
        assert [outcome.batch_size for outcome in outcomes] == [1, 4, 4, 4, 4, 2, 2]

    assert batching(at_once, network) == [1, 4, 2]


def test_every_worker_runs_a_batch_of_its_own() -> None:
    network = Network()

    async def at_once(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.submit(image(n)) for n in range(2)))

    assert batching(at_once, network, workers=2) == [1, 1]


def test_a_failing_network_fails_the_images_of_its_batch_alone() -> None:
    network = Network()

    async def one_bad(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="not finite"):
            await batcher.submit(image(np.nan))
        assert values([await batcher.submit(image(5))]) == [5]

    batching(one_bad, network)


def test_one_bad_image_of_a_batch_fails_none_of_the_others() -> None:
    network = Network()
    network.go_on.clear()

    async def together(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit(image(1)))
        await asyncio.to_thread(network.entered.wait, 10)
        waiting = [asyncio.create_task(batcher.submit(image(n))) for n in (2, np.nan, 3)]
        while len(batcher._waiting) < 3:
            await asyncio.sleep(0.001)
        network.go_on.set()
        await first
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[1], RuntimeError)
        assert values([outcomes[0], outcomes[2]]) == [2, 3]

    assert batching(together, network) == [1, 1, 1]


def test_an_image_whose_client_has_gone_is_not_run() -> None:
    network = Network()
    network.go_on.clear()

    async def one_goes(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit(image(1)))
        gone, stays = (asyncio.create_task(batcher.submit(image(n))) for n in (2, 3))
        await asyncio.to_thread(network.entered.wait, 10)
        gone.cancel()
        await asyncio.sleep(0)
        network.go_on.set()
        assert values(await asyncio.gather(first, stays)) == [1, 3]

    assert batching(one_goes, network) == [1, 1]
