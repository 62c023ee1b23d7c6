"""A served bundle, wherever it is served, and whether it answers as the model was evaluated."""

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from darkroom.engines.protocol import Floats
from darkroom.errors import DarkroomError, UserError
from darkroom.images import REQUESTED_IMAGES, Preprocessing, as_requested
from darkroom.model.parity import MAXIMUM_INEXACT_DIFFERENCE, allowed_difference
from darkroom.serving.limits import MAXIMUM_BODY_BYTES


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


class Answering(Protocol):
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
            sent = as_requested(content, preprocessing, largest_bytes=MAXIMUM_BODY_BYTES)
            if sent is not content:
                path = Path(folder) / f"{position}.png"
                path.write_bytes(sent)
            files.append(path)
        yield files


def compare_answers(
    answering: Answering,
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
    is_inexact = allowed >= MAXIMUM_INEXACT_DIFFERENCE
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
    answering: Answering, *, images: Sequence[Path], classes: Sequence[str]
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
