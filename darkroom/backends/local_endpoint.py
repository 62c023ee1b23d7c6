"""An endpoint on this machine: the `serve` program as a child process on the loopback."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import requests
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict

from darkroom.errors import DarkroomError
from darkroom.images import FORMATS
from darkroom.parent_watch import PARENT_VARIABLE, parent_environment
from darkroom.prediction import Floats

_LOOPBACK = "127.0.0.1"
_SECONDS_TO_DRAIN = 10
_SECONDS_BETWEEN_PINGS = 0.05
_ANSWER_SECONDS = 60
"""SageMaker allows an invocation as long."""
_LINES_SHOWN = 20


class EndpointError(DarkroomError):
    """The endpoint did not start, or did not answer as it should."""


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


class LocalEndpoint:
    """A served bundle. A context manager: it is stopped at the block's end, unless kept.

    Args:
        bundle: bundle folder or model.tar.gz.
        log: file for what the server prints.
        timeout_seconds: how long it may take until it answers /ping.
        keep: leave it running at the block's end, and when this process ends.

    Raises:
        EndpointError: it ended, or did not answer in time; the message shows its log.
    """

    def __init__(
        self, bundle: Path, *, log: Path, timeout_seconds: float = 60, keep: bool = False
    ) -> None:
        self.log = log
        self._keep = keep
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business on the loopback
        log.parent.mkdir(parents=True, exist_ok=True)
        with socket.create_server((_LOOPBACK, 0), backlog=1024) as listening:
            self.url = f"http://{_LOOPBACK}:{listening.getsockname()[1]}"
            self._process = self._start(bundle, listening=listening)
        try:
            self._wait(timeout_seconds)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def invoke(self, image: bytes, *, content_type: str, top_k: int = 5) -> dict[str, Any]:
        """Send one encoded image.

        Returns:
            `class`, `probability`, `top_k` (a list of class and probability) and
            `model_version`.

        Raises:
            EndpointError: it is gone, or answers with an error.
        """
        try:
            response = self._session.post(
                f"{self.url}/invocations",
                params={"top_k": top_k},
                data=image,
                headers={"Content-Type": content_type},
                timeout=_ANSWER_SECONDS,
            )
        except requests.RequestException as error:
            raise EndpointError(f"the endpoint {self.url} does not answer: {error}") from error
        answer: dict[str, Any] = response.json()
        if not response.ok:
            raise EndpointError(f"the endpoint answers {response.status_code}: {answer['error']}")
        return answer

    def stop(self) -> None:
        """End the server: SIGTERM, so that it drains, then SIGKILL."""
        self._session.close()
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_DRAIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._keep and error is None:
            self._let_go()
        else:
            self.stop()

    def _start(self, bundle: Path, *, listening: socket.socket) -> subprocess.Popen[bytes]:
        descriptor = str(listening.fileno())
        with self.log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 — our own program
                [sys.executable, "-m", "darkroom.serving", "--fd", descriptor, str(bundle)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if k != PARENT_VARIABLE}
        return inherited if self._keep else {**inherited, **parent_environment()}

    def _wait(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not self._answers_ping():
            if self._process.poll() is not None:
                raise EndpointError(f"the endpoint did not start:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise EndpointError(
                    f"the endpoint did not answer /ping within {timeout_seconds:g} s:\n"
                    f"{self._last_lines()}"
                )
            time.sleep(_SECONDS_BETWEEN_PINGS)

    def _answers_ping(self) -> bool:
        # The socket listens before the server reads from it, hence the short time-out.
        try:
            return self._session.get(f"{self.url}/ping", timeout=0.5).ok
        except requests.RequestException:
            return False

    def _last_lines(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LINES_SHOWN:]) or "(it printed nothing)"

    def _let_go(self) -> None:
        self._session.close()
        # Popen would warn about a child that still runs when it is collected.
        self._process.returncode = 0


def check_endpoint(
    endpoint: LocalEndpoint,
    *,
    images: Sequence[Path],
    expected: Floats,
    classes: Sequence[str],
    tolerance: float,
) -> EndpointCheck:
    """Send image files as they are, and compare the answers with the expected ones.

    Args:
        expected: (N, C) probabilities, columns in the order of `classes`.
        tolerance: largest difference of a probability that counts as agreement.

    Raises:
        EndpointError: an image is refused, or the endpoint is gone.
    """
    if not images:
        raise EndpointError("there are no images to check the endpoint with")
    differences, same_class, milliseconds = [], [], []
    for path, row in zip(images, expected, strict=True):
        content, content_type = path.read_bytes(), content_type_of(path)
        started = time.perf_counter()
        answer = endpoint.invoke(content, content_type=content_type, top_k=len(classes))
        milliseconds.append((time.perf_counter() - started) * 1e3)
        differences.append(np.abs(_answered(answer, classes=classes) - row).max())
        same_class.append(answer["class"] == classes[int(row.argmax())])
    agreeing = np.logical_and(same_class, np.array(differences) <= tolerance)
    return EndpointCheck(
        images=len(images),
        agreement=float(agreeing.mean()),
        maximum_difference=float(max(differences)),
        latency_ms_p50=float(np.percentile(milliseconds, 50)),
        latency_ms_p99=float(np.percentile(milliseconds, 99)),
    )


def content_type_of(path: Path) -> str:
    """The media type of an image file, by its content."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return Image.MIME[image.format or ""]
    except (UnidentifiedImageError, OSError, KeyError):
        return "application/octet-stream"


def _answered(answer: Mapping[str, Any], *, classes: Sequence[str]) -> Floats:
    """(C,) probabilities of an answer that names every class."""
    by_class = {item["class"]: item["probability"] for item in answer["top_k"]}
    if by_class.keys() != set(classes):
        raise EndpointError(
            f"the endpoint knows the classes {sorted(by_class)}, not {sorted(classes)}"
        )
    return np.array([by_class[name] for name in classes], dtype=np.float32)
