"""An endpoint on this machine: the `serve` program as a child process on the loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from darkroom.backends.endpoint import Endpoint, EndpointCheck, EndpointError, compare_answers
from darkroom.base.files import workspace
from darkroom.base.processes import PARENT_VARIABLE, parent_environment
from darkroom.models.engine import Floats

_PROGRAM = "darkroom.serving.program"
_LOOPBACK = "127.0.0.1"
_SECONDS_TO_DRAIN = 10
_SECONDS_BETWEEN_LOOKS = 0.05
_PING_SECONDS = 0.5
_ANSWER_SECONDS = 60
"""SageMaker allows an invocation as long."""
_LINES_SHOWN = 20
TARGET_MODEL_HEADER = "X-Amzn-SageMaker-Target-Model"
"""As SageMaker names it; its SDKs call it TargetModel."""


def start_endpoint(
    bundle: Path,
    *,
    timeout_seconds: float = 60,
    keep: bool = False,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    several: bool = False,
) -> Endpoint:
    """Serve a bundle on a free loopback port, and wait until it answers /ping.

    Args:
        bundle: bundle folder or model.tar.gz; a folder of them, if there are several.
        keep: let it outlive this process; else it ends with it, even if that is killed.
        log: file for what the server prints (default: in the workspace).
        environment: variables for the server, beside those of this process.
        several: serve all bundles of the folder, each by its name there.

    Raises:
        EndpointError: it ended, or did not answer in time; the message shows its log.
    """
    with socket.create_server((_LOOPBACK, 0), backlog=1024) as listening:
        port = listening.getsockname()[1]
        log = log or endpoints_folder() / f"{port}.log"
        process = _start(
            ["--models", str(bundle)] if several else [str(bundle)],
            listening=listening,
            log=log,
            keep=keep,
            environment=environment or {},
        )
    url = f"http://{_LOOPBACK}:{port}"
    endpoint = Endpoint(url=url, pid=process.pid, log=log)
    try:
        _wait(url, process=process, log=log, timeout_seconds=timeout_seconds)
    except BaseException:
        stop_endpoint(endpoint)
        raise
    finally:
        # From here on the server goes by its process id alone; the object would warn of a
        # child that still runs.
        process.returncode = 0
    return endpoint


def stop_endpoint(endpoint: Endpoint) -> None:
    """End the server: SIGTERM, so that it drains, then SIGKILL. Fine if it has ended."""
    if endpoint.pid is None:
        raise EndpointError(f"the endpoint {endpoint.name!r} is no process of this machine")
    _end(endpoint.pid)
    if endpoint.name:
        record_of(endpoint.name).unlink(missing_ok=True)


def endpoints_folder() -> Path:
    """Where logs of local endpoints lie, and the records of those that are kept."""
    return workspace() / "endpoints"


def record_of(name: str) -> Path:
    """The record of a local endpoint that is kept."""
    return endpoints_folder() / f"{name}.json"


def _end(pid: int) -> None:
    for number, seconds in ((signal.SIGTERM, _SECONDS_TO_DRAIN), (signal.SIGKILL, 5)):
        if _has_ended(pid):
            return
        # The server's own child would outlive a kill of its supervisor for a moment.
        (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not _has_ended(pid):
            time.sleep(_SECONDS_BETWEEN_LOOKS)


class EndpointClient:
    """Sends images to an endpoint, over connections that are kept. Threads may share it.

    Args:
        url: where it listens, without /invocations.
        target_model: which of its models is asked, where it has several.
    """

    def __init__(self, url: str, *, target_model: str = "") -> None:
        self._url = url
        self._headers = {TARGET_MODEL_HEADER: target_model} if target_model else {}
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business on the loopback
        # Without cookies nothing of a session changes, so that threads may share it.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

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
                f"{self._url}/invocations",
                params={"top_k": top_k},
                data=image,
                headers={"Content-Type": content_type, **self._headers},
                timeout=_ANSWER_SECONDS,
            )
        except requests.RequestException as error:
            raise EndpointError(
                f"the endpoint {self._url} does not answer: {_cause(error)}"
            ) from error
        return _answer_of(response)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.close()


def check_endpoint(
    endpoint: Endpoint,
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
    if endpoint.url is None:
        raise EndpointError(f"the endpoint {endpoint.name!r} is no process of this machine")
    with EndpointClient(endpoint.url) as client:
        return compare_answers(
            client, images=images, expected=expected, classes=classes, tolerance=tolerance
        )


def _cause(error: requests.RequestException) -> str:
    """The innermost reason: what lies around it are names of urllib3's."""
    if isinstance(error, requests.Timeout):
        return f"timed out after {_ANSWER_SECONDS} s"
    inner: BaseException = error
    while (
        cause := getattr(inner.args[0] if inner.args else None, "reason", None)
        or inner.__cause__
        or inner.__context__
    ):
        inner = cause
    return getattr(inner, "strerror", None) or str(inner)


def _answer_of(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.ok and isinstance(answer, dict):
        return answer
    said = answer.get("error") if isinstance(answer, dict) else None
    wait = response.headers.get("Retry-After", "")
    raise EndpointError(
        f"the endpoint answers {response.status_code}: "
        f"{said or 'something else than the JSON of a Darkroom endpoint'}",
        status=response.status_code,
        retry_after=float(wait) if wait.isdecimal() else None,
    )


def _start(
    arguments: Sequence[str],
    *,
    listening: socket.socket,
    log: Path,
    keep: bool,
    environment: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    inherited = {k: v for k, v in os.environ.items() if k != PARENT_VARIABLE}
    variables = {**inherited, **environment, **({} if keep else parent_environment())}
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = listening.fileno()
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 — our own program
            [sys.executable, "-m", _PROGRAM, "--fd", str(descriptor), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables,
            pass_fds=[descriptor],
            start_new_session=True,
        )


def _wait(url: str, *, process: subprocess.Popen[bytes], log: Path, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not _answers_ping(url):
        if process.poll() is not None:
            raise EndpointError(f"the endpoint did not start:\n{_last_lines(log)}")
        if time.monotonic() > deadline:
            raise EndpointError(
                f"the endpoint did not answer /ping within {timeout_seconds:g} s:\n"
                f"{_last_lines(log)}"
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _answers_ping(url: str) -> bool:
    # The socket listens before the server reads from it, hence the short time-out.
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{url}/ping", timeout=_PING_SECONDS).ok
    except requests.RequestException:
        return False


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LINES_SHOWN:]) or "(it printed nothing)"


def _has_ended(pid: int) -> bool:
    """Whether a process is gone; one that is our child is collected."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not _exists(pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
