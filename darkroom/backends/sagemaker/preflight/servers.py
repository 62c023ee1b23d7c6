"""Whether the servers that a job talks to answer, and can be reached from where it runs."""

import ipaddress
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

import requests

from darkroom.backends.sagemaker.preflight.findings import Finding

_SECONDS_TO_CONNECT = 4
_SECONDS_TO_ANSWER = 10
_ZENML = "ZenML server"
_MLFLOW = "MLflow server"


def check_zenml(url: str) -> list[Finding]:
    """Address, answer and version of the ZenML server."""
    if problem := _unreachable_from_aws(url, subject=_ZENML, setting="ZENML_STORE_URL"):
        return [problem]
    return ask_zenml(url)


def ask_zenml(url: str) -> list[Finding]:
    """Ask the server for its version, which has to be that of the ZenML installed here."""
    answer = _get(f"{url.rstrip('/')}/api/v1/info")
    if isinstance(answer, str):
        text = f"{url!r} does not answer: {answer}. Start it, or fix ZENML_STORE_URL."
        return [Finding(_ZENML, "problem", text)]
    theirs = _json(answer).get("version")
    if answer.status_code != requests.codes.ok or not theirs:
        text = (
            f"{url!r} answers, but not as a ZenML server (HTTP {answer.status_code} to "
            "/api/v1/info). Fix ZENML_STORE_URL: the address without a path."
        )
        return [Finding(_ZENML, "problem", text)]
    ours = _installed("zenml")
    if ours and ours != theirs:
        text = f"{url!r} runs ZenML {theirs}, here it is {ours}. Run the server in {ours}."
        return [Finding(_ZENML, "problem", text)]
    return [Finding(_ZENML, "ok", f"{url} answers, ZenML {theirs}."), *_plain_http(url, _ZENML)]


def check_mlflow_url(url: str) -> list[Finding]:
    """Address and answer of an MLflow server."""
    if problem := _unreachable_from_aws(url, subject=_MLFLOW, setting="DARKROOM_MLFLOW_URI"):
        return [problem]
    return ask_mlflow(url)


def ask_mlflow(url: str) -> list[Finding]:
    """Whether something answers there; without the token, an MLflow behind one says 401."""
    answer = _get(f"{url.rstrip('/')}/health")
    if isinstance(answer, str):
        text = f"{url!r} does not answer: {answer}. Start it, or fix DARKROOM_MLFLOW_URI."
        return [Finding(_MLFLOW, "problem", text)]
    if answer.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
        text = f"{url} answers and asks for a token; whether yours is accepted is not checked."
        return [Finding(_MLFLOW, "ok", text), *_plain_http(url, _MLFLOW)]
    if answer.status_code != requests.codes.ok:
        text = (
            f"{url!r} answers HTTP {answer.status_code} to /health, which MLflow answers with 200. "
            "Fix DARKROOM_MLFLOW_URI: the address without a path."
        )
        return [Finding(_MLFLOW, "problem", text)]
    return [Finding(_MLFLOW, "ok", f"{url} answers."), *_plain_http(url, _MLFLOW)]


def _unreachable_from_aws(url: str, *, subject: str, setting: str) -> Finding | None:
    """The problem that a job could never reach the address; None: it might."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        text = f"{url!r} is no address of a server. Set {setting} to https://HOST[:PORT]."
        return Finding(subject, "problem", text)
    if is_loopback(host):
        text = (
            f"{url!r} is this machine alone: jobs on AWS cannot reach it. Run the server where "
            f"they can, and set {setting} to its address (docs/sagemaker.md)."
        )
        return Finding(subject, "problem", text)
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means the machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _plain_http(url: str, subject: str) -> list[Finding]:
    host = urlsplit(url).hostname or ""
    if not url.startswith("http://") or is_loopback(host):
        return []
    text = f"{url} is not encrypted: tokens travel in clear text. Use https://."
    return [Finding(subject, "note", text)]


def _get(url: str) -> "requests.Response | str":
    """The answer, or why there is none."""
    try:
        return requests.get(url, timeout=(_SECONDS_TO_CONNECT, _SECONDS_TO_ANSWER))
    except requests.exceptions.SSLError:
        return "its TLS certificate is not accepted"
    except requests.exceptions.Timeout:
        return f"nothing within {_SECONDS_TO_CONNECT} to {_SECONDS_TO_ANSWER} s"
    except requests.exceptions.ConnectionError:
        return "the connection fails"
    except requests.exceptions.RequestException as error:
        return f"{type(error).__name__}: {error}"


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except requests.exceptions.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
