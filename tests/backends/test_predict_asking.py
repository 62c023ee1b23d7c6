"""Asking an endpoint for many images: order, patience, and what is told of failures."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.backends.endpoint import AT_ONCE, ConcurrentClient, EndpointError
from darkroom.data.found_image import FoundImage
from darkroom.models.prediction import Prediction


def answer_of(image: bytes, *, top_k: int) -> dict[str, Any]:
    """An endpoint's: the class is what the bytes say."""
    name = image.decode()
    best = [(name, 0.7), ("other", 0.2), ("third", 0.1)][:top_k]
    return {
        "class": name,
        "probability": 0.7,
        "top_k": [{"class": kind, "probability": share} for kind, share in best],
        "model_version": "1",
    }


class Answering:
    """Answers by what it is told to raise for an image, in that order; then as it should."""

    def __init__(self, **failures: list[EndpointError]) -> None:
        self._failures = failures
        self.asked: list[tuple[str, int]] = []

    def invoke(self, image: bytes, *, content_type: str, top_k: int = 5) -> dict[str, Any]:
        self.asked.append((image.decode(), top_k))
        waiting = self._failures.get(image.decode(), [])
        if waiting:
            raise waiting.pop(0)
        return answer_of(image, top_k=top_k)


class Waits:
    """Waits no time, and notes how long it should have."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return False


def images(*names: str) -> list[FoundImage]:
    return [FoundImage(f"{name}.png", content=name.encode()) for name in names]


def refusal(status: int | None, *, retry_after: float | None = None) -> EndpointError:
    return EndpointError(f"the endpoint answers {status}", status=status, retry_after=retry_after)


def rows_of(asker: ConcurrentClient, found: list[FoundImage]) -> list[Prediction]:
    return [prediction for _, prediction in asker.rows(found)]


def test_rows_come_in_the_order_of_the_images_though_several_are_asked_at_once() -> None:
    class Slow(Answering):
        """The second image is answered only once all others of its time are."""

        def __init__(self) -> None:
            super().__init__()
            self._others = threading.Semaphore(0)

        def invoke(self, image: bytes, **options: Any) -> dict[str, Any]:
            if image == b"n1":
                for _ in range(AT_ONCE - 1):
                    assert self._others.acquire(timeout=10)
            else:
                self._others.release()
            return super().invoke(image, **options)

    names = [f"n{number}" for number in range(40)]
    asker = ConcurrentClient(Slow(), top_k=2)
    assert [row.class_name for row in rows_of(asker, images(*names))] == names


def test_the_first_answer_tells_all_classes_and_its_row_is_as_long_as_the_others() -> None:
    answering = Answering()
    asker = ConcurrentClient(answering, top_k=2)
    rows = rows_of(asker, images("cat", "dog"))
    assert asker.classes == {"cat", "other", "third"}
    assert [len(row.top_k) for row in rows] == [2, 2]
    assert [top_k for _, top_k in answering.asked] == [10**6, 2]
    assert asker.latency_ms() is not None


def test_an_endpoint_that_is_busy_is_asked_again_when_it_says() -> None:
    waits = Waits()
    answering = Answering(cat=[refusal(503, retry_after=7), refusal(503), refusal(429)])
    (row,) = rows_of(ConcurrentClient(answering, top_k=1, wait=waits), images("cat"))
    assert row.class_name == "cat"
    assert waits.seconds == [7, 0.5, 1]


def test_an_endpoint_that_stays_busy_is_given_up_after_a_minute() -> None:
    waits = Waits()
    answering = Answering(cat=[refusal(503) for _ in range(100)])
    with pytest.raises(EndpointError, match="503"):
        rows_of(ConcurrentClient(answering, top_k=1, wait=waits), images("cat"))
    assert 60 <= sum(waits.seconds) <= 70


@pytest.mark.parametrize("status", [400, 413, 415, 424, 500])
def test_an_image_that_is_refused_is_a_row(status: int) -> None:
    answering = Answering(dog=[refusal(status)])
    rows = rows_of(ConcurrentClient(answering, top_k=1, wait=Waits()), images("cat", "dog", "cow"))
    assert [row.class_name for row in rows] == ["cat", None, "cow"]
    assert str(status) in str(rows[1].error)


@pytest.mark.parametrize("status", [403, 404, 507])
def test_what_every_image_would_be_told_ends_it(status: int) -> None:
    answering = Answering(dog=[refusal(status)])
    with pytest.raises(EndpointError, match=str(status)):
        rows_of(ConcurrentClient(answering, top_k=1, wait=Waits()), images("cat", "dog", "cow"))


def test_a_connection_may_be_lost_twice_as_when_a_server_starts_again() -> None:
    lost = [refusal(None), refusal(None)]
    rows = rows_of(
        ConcurrentClient(Answering(dog=lost), top_k=1, wait=Waits()), images("cat", "dog")
    )
    assert [row.class_name for row in rows] == ["cat", "dog"]
    lost = [refusal(None) for _ in range(3)]
    with pytest.raises(EndpointError):
        rows_of(ConcurrentClient(Answering(dog=lost), top_k=1, wait=Waits()), images("cat", "dog"))


def test_what_cannot_be_read_is_never_asked(tmp_path: Path) -> None:
    answering = Answering()
    found = [
        FoundImage("a", error="no such file"),
        FoundImage("b", content=tmp_path / "missing.png"),
        *images("cat"),
    ]
    rows = rows_of(ConcurrentClient(answering, top_k=1), found)
    assert [row.error for row in rows[:2]] == [
        "no such file",
        "cannot be read: No such file or directory",
    ]
    assert [name for name, _ in answering.asked] == ["cat"]


def test_answers_of_something_else_are_not_taken_for_predictions() -> None:
    class Foreign(Answering):
        def invoke(self, image: bytes, **options: Any) -> dict[str, Any]:
            return {"label": "cat"}

    with pytest.raises(EndpointError, match="something else than a class"):
        rows_of(ConcurrentClient(Foreign(), top_k=1), images("cat"))


def test_images_are_taken_as_they_are_needed() -> None:
    taken: list[str] = []

    def many() -> Iterator[FoundImage]:
        for number in range(1000):
            taken.append(str(number))
            yield from images(f"n{number}")

    rows = ConcurrentClient(Answering(), top_k=1).rows(many())
    assert [next(rows)[1].class_name for _ in range(3)] == ["n0", "n1", "n2"]
    rows.close()
    assert len(taken) < 3 + 2 * AT_ONCE + 1


def test_nobody_waits_for_a_busy_endpoint_once_the_rows_are_not_wanted() -> None:
    busy, begun = [refusal(503, retry_after=60) for _ in range(9)], threading.Event()

    class Busy(Answering):
        def invoke(self, image: bytes, **options: Any) -> dict[str, Any]:
            if image == b"dog":
                begun.set()
            return super().invoke(image, **options)

    rows = ConcurrentClient(Busy(dog=busy), top_k=1).rows(images("cat", "cow", "dog"))
    next(rows)
    next(rows)
    assert begun.wait(10)
    timed(rows.close, seconds=5)


def timed(work: Callable[[], None], *, seconds: float) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()
