"""A served bundle, wherever it is served, and whether it answers as the model was evaluated."""

import io
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from darkroom.base.concurrency import map_in_order
from darkroom.base.errors import DarkroomError, UserError
from darkroom.data.found_image import MAX_IMAGE_BYTES, FoundImage, too_large
from darkroom.images import (
    REQUESTED_IMAGES,
    ImageError,
    Preprocessing,
    as_png,
    as_requested,
    decode,
    is_accepted,
)
from darkroom.models.bundle import MAX_INEXACT_DIFFERENCE, allowed_difference
from darkroom.models.engine import Floats
from darkroom.models.prediction import Prediction
from darkroom.serving.limits import MAX_BODY_BYTES

# --- endpoint ---


class EndpointError(DarkroomError):
    """The endpoint did not start, or did not answer as it should.

    Args:
        message: what happened.
        status: HTTP status of its answer; None: there was no answer.
        retry_after: seconds after which it wants to be asked again, where it said so.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class Endpoint(BaseModel):
    """A served bundle: a process of this machine, or an endpoint of SageMaker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Literal["local", "sagemaker"] = "local"
    url: str | None = None
    """Where it listens, without /invocations."""
    pid: int | None = None
    """Process id of a local server."""
    log: Path | None = None
    """What a local server prints."""
    name: str | None = None
    """Of a SageMaker endpoint, or of a local one that is kept."""
    region: str | None = None
    """Where that is."""
    configuration: str | None = None
    """Name of the endpoint configuration that serves this bundle."""
    previous: str | None = None
    """Name of the configuration to go back to, where the endpoint was updated."""
    temporary: bool = False
    """It lives for the time of its check."""


class EndpointCheck(BaseModel):
    """What an endpoint answered, compared with what was expected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    agreement: float
    """Share of the images with the same class and all probabilities within the tolerance."""
    maximum_difference: float
    """Of any probability."""
    latency_ms_p50: float
    latency_ms_p99: float
    """Of single requests, one after the other."""
    engine: str = ""
    """What ran the network, as the answers say; empty: they do not."""
    tolerance: float | None = None
    """Largest difference of a probability that counted as agreement."""
    url: str | None = None
    """Where the endpoint still listens, filled in by whoever keeps it."""

    @property
    def agrees(self) -> bool:
        """Whether every answer was as expected."""
        return self.agreement == 1


@dataclass(frozen=True)
class Expectation:
    """What one model is expected to answer."""

    images: Sequence[Path]
    probabilities: Floats
    """(N, C), columns in the order of the classes."""
    classes: Sequence[str]


class InferenceClient(Protocol):
    """Something that classifies an image."""

    def invoke(self, image: bytes, *, content_type: str, top_k: int = 5) -> dict[str, Any]:
        """Send one encoded image.

        Returns:
            `class`, `probability`, `top_k` (a list of class and probability),
            `model_version` and `engine`.

        Raises:
            EndpointError: it is gone, or answers with an error.
        """


@contextmanager
def files_to_send(images: Sequence[Path], *, preprocessing: Preprocessing) -> Iterator[list[Path]]:
    """Files of which an endpoint sees what the model does, while the block runs.

    They are the images themselves where a server opens these, and copies in a form that it opens
    where they are in another format (HEIC, TIFF, …), or larger than it takes.

    Raises:
        ImageError: one cannot be used.
    """
    with TemporaryDirectory(prefix="darkroom-send-") as folder:
        files = []
        for position, path in enumerate(images):
            content = path.read_bytes()
            sent = as_requested(content, preprocessing, largest_bytes=MAX_BODY_BYTES)
            if sent is not content:
                path = Path(folder) / f"{position}.png"
                path.write_bytes(sent)
            files.append(path)
        yield files


def compare_answers(
    answering: InferenceClient,
    *,
    images: Sequence[Path],
    expected: Floats,
    classes: Sequence[str],
    tolerance: float,
) -> EndpointCheck:
    """Send image files as they are, and compare the answers with the expected ones.

    Args:
        expected: (N, C) probabilities, columns in the order of `classes`.
        tolerance: largest difference of a probability that counts as agreement. An engine
            that computes with fewer digits is allowed more, and with so much allowed, of two
            classes that lie closer together either is as expected.

    Raises:
        EndpointError: an image is refused, or the endpoint is gone.
    """
    if not images:
        raise EndpointError("there are no images to check the endpoint with")
    rows, milliseconds, engines = _ask(answering, images=images, classes=classes)
    allowed = allowed_difference(tolerance, engines=engines)
    differences = np.abs(rows - expected).max(axis=1)
    same_class = rows.argmax(axis=1) == expected.argmax(axis=1)
    is_inexact = allowed >= MAX_INEXACT_DIFFERENCE
    agreeing = (same_class | is_inexact) & (differences <= allowed)
    return EndpointCheck(
        images=len(images),
        agreement=float(agreeing.mean()),
        maximum_difference=float(differences.max()),
        latency_ms_p50=float(np.percentile(milliseconds, 50)),
        latency_ms_p99=float(np.percentile(milliseconds, 99)),
        engine=", ".join(engines),
        tolerance=allowed,
    )


def require_agreement(check: EndpointCheck, *, tolerance: float) -> None:
    """Refuse an endpoint that answers differently.

    Raises:
        EndpointError: an answer was not as expected.
    """
    if not check.agrees:
        raise EndpointError(
            f"only {check.agreement:.1%} of {check.images} answers are as evaluated (largest "
            f"difference of a probability {check.maximum_difference:.3g}, allowed "
            f"{check.tolerance or tolerance:g}; the engine: {check.engine or 'not said'})"
        )


def require_one_of(model: str, *, models: Sequence[str], endpoint: str) -> None:
    """Refuse to remove a model that is not there, or the last one.

    Raises:
        UserError: saying which there are, or how to remove the endpoint.
    """
    if model not in models:
        known = ", ".join(models) or "none"
        raise UserError(f"the endpoint {endpoint!r} has no model {model!r}; it has {known}")
    if len(models) == 1:
        raise UserError(
            f"{model!r} is the only model of the endpoint {endpoint!r}; "
            f"`run.py down {endpoint}` removes both"
        )


def content_type_of(content: bytes | Path) -> str:
    """The media type of an encoded image or an image file, by its content."""
    try:
        stream = io.BytesIO(content) if isinstance(content, bytes) else content
        with Image.open(stream, formats=REQUESTED_IMAGES.formats) as image:
            return Image.MIME[image.format or ""]
    except (OSError, KeyError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "application/octet-stream"


def _ask(
    answering: InferenceClient, *, images: Sequence[Path], classes: Sequence[str]
) -> tuple[Floats, list[float], list[str]]:
    """(N, C) probabilities as answered, milliseconds of each answer, and the engines."""
    rows, milliseconds, engines = [], [], []
    for path in images:
        content, content_type = path.read_bytes(), content_type_of(path)
        started = time.perf_counter()
        answer = answering.invoke(content, content_type=content_type, top_k=len(classes))
        milliseconds.append((time.perf_counter() - started) * 1e3)
        rows.append(_answered(answer, classes=classes))
        engines.append(str(answer.get("engine", "")))
    return np.stack(rows), milliseconds, list(dict.fromkeys(filter(None, engines)))


def _answered(answer: Mapping[str, Any], *, classes: Sequence[str]) -> Floats:
    """(C,) probabilities of an answer that names every class."""
    by_class = {item["class"]: item["probability"] for item in answer["top_k"]}
    if by_class.keys() != set(classes):
        raise EndpointError(
            f"the endpoint knows the classes {sorted(by_class)}, not {sorted(classes)}"
        )
    return np.array([by_class[name] for name in classes], dtype=np.float32)


# --- several images at once ---
# Predictions asked of an endpoint, several at once, as rows in the order of the images.

AT_ONCE = 8
"""Requests under way: a server of a few cores is busy with that, and its queue is far longer."""

_BUSY = (429, 503)
_OF_THE_ENDPOINT = (401, 403, 404, 405, 501, 507)
"""Statuses that have nothing to do with the image: every other one would get them too."""
_BUSY_SECONDS = 60.0
"""Of waiting for one image, after which an endpoint that stays busy is given up."""
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.25, 10.0
_LOST_CONNECTIONS = 2
"""In a row for one image: a server that crashed is back by then, or gone."""
_EVERY_CLASS = 10**6

Wait: TypeAlias = Callable[[float], bool]
"""Waits so many seconds; true where nobody wants the answer any more."""


class ConcurrentClient:
    """Asks an endpoint for the class of each image.

    Args:
        answering: the endpoint; shared by threads.
        top_k: classes of a row.
        ended: is set when nobody wants the rows any more.
        wait: between attempts; None: waits until `ended` at the longest.
    """

    def __init__(
        self,
        answering: InferenceClient,
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
            pause = min(_MAX_PAUSE_SECONDS, 2 * pause)

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
    if len(encoded) > MAX_BODY_BYTES:
        raise ImageError("no endpoint opens this format or size: convert it to a smaller JPEG")
    return encoded


def _read(content: bytes | Path) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        size = content.stat().st_size
        if size > MAX_IMAGE_BYTES:
            raise ImageError(too_large(size))
        return content.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
