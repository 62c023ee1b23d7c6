"""Predictions asked of an endpoint, several at once, as rows in the order of the images."""

import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, TypeAlias

import numpy as np
from pydantic import ValidationError

from darkroom.backends.endpoint import Answering, EndpointError, content_type_of
from darkroom.images import REQUESTED_IMAGES, ImageError, as_png, decode, is_accepted
from darkroom.inputs.found import MAXIMUM_IMAGE_BYTES, FoundImage, too_large
from darkroom.prediction import Prediction
from darkroom.serving.limits import MAXIMUM_BODY_BYTES
from darkroom.sources.concurrency import map_in_order

AT_ONCE = 8
"""Requests under way: a server of a few cores is busy with that, and its queue is far longer."""

_BUSY = (429, 503)
_OF_THE_ENDPOINT = (401, 403, 404, 405, 501, 507)
"""Statuses that have nothing to do with the image: every other one would get them too."""
_BUSY_SECONDS = 60.0
"""Of waiting for one image, after which an endpoint that stays busy is given up."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 10.0
_LOST_CONNECTIONS = 2
"""In a row for one image: a server that crashed is back by then, or gone."""
_EVERY_CLASS = 10**6

Wait: TypeAlias = Callable[[float], bool]
"""Waits so many seconds; true where nobody wants the answer any more."""


class Asker:
    """Asks an endpoint for the class of each image.

    Args:
        answering: the endpoint; shared by threads.
        top_k: classes of a row.
        ended: is set when nobody wants the rows any more.
        wait: between attempts; None: waits until `ended` at the longest.
    """

    def __init__(
        self,
        answering: Answering,
        *,
        top_k: int,
        ended: Event | None = None,
        wait: Wait | None = None,
    ) -> None:
        self._answering, self._top_k = answering, top_k
        self._ended = ended or Event()
        self._wait = wait or self._ended.wait
        self._seconds = array("d")
        self.classes: frozenset[str] = frozenset()
        """What the model knows; empty until the first image was classified."""

    def rows(self, images: Iterable[FoundImage]) -> Iterator[tuple[FoundImage, Prediction]]:
        """Each image with its prediction, in the order given; what it refuses has an error.

        Raises:
            EndpointError: it is gone, stays busy, or is not one of Darkroom's.
            UserError, DarkroomError: AWS refuses, or cannot be reached.
        """
        remaining = iter(images)
        for found in remaining:
            yield self._ask(found)
            if self.classes:
                break
        answered = map_in_order(self._ask, remaining, threads=AT_ONCE)
        try:
            # `yield from` would wait for all that is under way before it says so.
            for row in answered:  # noqa: UP028
                yield row
        finally:
            self._ended.set()
            answered.close()

    def latency_ms(self) -> tuple[float, float] | None:
        """Median and 99th percentile of the answers' times; None: there was no answer."""
        if not self._seconds:
            return None
        p50, p99 = np.percentile(self._seconds, (50, 99)) * 1e3
        return float(p50), float(p99)

    def _ask(self, found: FoundImage) -> tuple[FoundImage, Prediction]:
        if found.error or found.content is None:
            return found, Prediction(source=found.source, error=found.error or "nothing to ask")
        try:
            content = _in_a_form_that_is_opened(_read(found.content))
        except ImageError as error:
            return found, Prediction(source=found.source, error=str(error))
        try:
            answer = self._patiently(content)
        except EndpointError as error:
            if error.status is None or error.status in (*_BUSY, *_OF_THE_ENDPOINT):
                self._ended.set()  # the others need not wait either
                raise
            return found, Prediction(source=found.source, error=str(error))
        return found, self._row(answer, source=found.source)

    def _patiently(self, content: bytes) -> dict[str, Any]:
        waited, pause, lost = 0.0, _FIRST_PAUSE_SECONDS, 0
        while True:
            try:
                return self._invoke(content)
            except EndpointError as error:
                lost += error.status is None
                is_passing = error.status in _BUSY or error.status is None
                if not is_passing or lost > _LOST_CONNECTIONS or waited >= _BUSY_SECONDS:
                    raise
                seconds = min(error.retry_after or pause, _BUSY_SECONDS)
                if self._wait(seconds):
                    raise
            waited += seconds
            pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)

    def _invoke(self, content: bytes) -> dict[str, Any]:
        top_k = self._top_k if self.classes else _EVERY_CLASS
        content_type = content_type_of(content)
        started = time.perf_counter()
        answer = self._answering.invoke(content, content_type=content_type, top_k=top_k)
        self._seconds.append(time.perf_counter() - started)
        return answer

    def _row(self, answer: dict[str, Any], *, source: str) -> Prediction:
        """The first answer names every class; a row does not."""
        try:
            row = Prediction.model_validate(
                {
                    "source": source,
                    "class": answer["class"],
                    "probability": answer["probability"],
                    "top_k": answer["top_k"],
                }
            )
        except (KeyError, ValidationError) as error:
            raise EndpointError(
                f"the endpoint answers something else than a class with its probability: "
                f"{str(answer)[:200]!r}; is it one of Darkroom's?"
            ) from error
        self.classes = self.classes or frozenset(item.class_name for item in row.top_k)
        return row.model_copy(update={"top_k": row.top_k[: self._top_k]})


def pause_until(ended: Event) -> Callable[[float], None]:
    """A pause for what asks AWS, which ends with an EndpointError once that is set."""

    def pause(seconds: float) -> None:
        if ended.wait(seconds):
            raise EndpointError("nobody waits for the answer any more")

    return pause


def _in_a_form_that_is_opened(content: bytes) -> bytes:
    """An image's own bytes, or its pixels as a PNG where a server opens no such format.

    What is no image is sent, too, for the endpoint to say so.
    """
    if is_accepted(content, limits=REQUESTED_IMAGES):
        return content
    try:
        encoded = as_png(decode(content))
    except ImageError:
        return content
    if len(encoded) > MAXIMUM_BODY_BYTES:
        raise ImageError("no endpoint opens this format or size: convert it to a smaller JPEG")
    return encoded


def _read(content: bytes | Path) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        size = content.stat().st_size
        if size > MAXIMUM_IMAGE_BYTES:
            raise ImageError(too_large(size))
        return content.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
