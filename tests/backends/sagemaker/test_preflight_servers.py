"""The servers that jobs talk to, before a run."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version

import pytest

from darkroom.backends.sagemaker.account.services import (
    ask_mlflow,
    ask_zenml,
    check_managed_mlflow,
    check_mlflow_url,
    check_zenml,
)
from preflight_account import (
    ACCOUNT,
    REGION,
    isolate,
    levels,
    problem,
    stubbed,
)


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path) -> None:
    """Nothing of the user's AWS configuration is seen."""
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def server() -> Iterator[Callable[..., str]]:
    """Start a server on loopback that answers the same to everything; returns its address."""
    running = []

    def start(*, status: int = 200, body: str = "OK") -> str:
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_args: object) -> None:
                pass

        listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        running.append(listening)
        return f"http://127.0.0.1:{listening.server_port}"

    yield start
    for listening in running:
        listening.shutdown()
        listening.server_close()


def test_a_zenml_server_of_the_same_version_is_fine(server) -> None:
    url = server(body=json.dumps({"version": version("zenml")}))
    assert levels(ask_zenml(url)) == ["ok"]


def test_a_zenml_server_of_another_version_is_named(server) -> None:
    text = problem(ask_zenml(server(body='{"version": "0.1.0"}')))
    assert f"runs ZenML 0.1.0, here it is {version('zenml')}" in text


@pytest.mark.parametrize("body", ["<html>", "[]", "{}"])
def test_what_is_no_zenml_server_is_named(server, body: str) -> None:
    assert "answers, but not as a ZenML server" in problem(ask_zenml(server(body=body)))


def test_a_server_that_does_not_run_is_named(server) -> None:
    assert "does not answer: the connection fails" in problem(ask_zenml("http://127.0.0.1:9"))
    assert "does not answer: the connection fails" in problem(ask_mlflow("http://127.0.0.1:9"))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8237", "http://localhost:8237", "https://[::1]", "http://0.0.0.0:80"]
)
def test_a_server_on_loopback_cannot_be_reached_from_aws(url: str) -> None:
    assert "is this machine alone: jobs on AWS cannot reach it" in problem(check_zenml(url))
    assert "set DARKROOM_MLFLOW_URI to its address" in problem(check_mlflow_url(url))


@pytest.mark.parametrize("url", ["", "sqlite:///zenml.db", "zenml.example.com"])
def test_what_is_no_address_of_a_server_is_named(url: str) -> None:
    assert f"{url!r} is no address of a server. Set ZENML_STORE_URL" in problem(check_zenml(url))


@pytest.mark.parametrize("status", [200, 401, 403])
def test_an_mlflow_that_answers_or_asks_for_a_token_is_fine(server, status: int) -> None:
    assert levels(ask_mlflow(server(status=status))) == ["ok"]


def test_what_is_no_mlflow_is_named(server) -> None:
    assert "answers HTTP 404 to /health" in problem(ask_mlflow(server(status=404)))


SERVER = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-tracking-server/ours"


@pytest.mark.parametrize("status", ["Created", "Stopped"])
def test_a_managed_mlflow_has_to_be_awake(status: str) -> None:
    sagemaker, stubber = stubbed("sagemaker")
    answer = {"TrackingServerStatus": status}
    stubber.add_response("describe_mlflow_tracking_server", answer, {"TrackingServerName": "ours"})
    found = check_managed_mlflow(SERVER, region=REGION, sagemaker=sagemaker)
    assert levels(found) == ["ok" if status == "Created" else "problem"]


@pytest.mark.slow
def test_a_managed_mlflow_app_is_asked_about_by_its_arn() -> None:
    sagemaker, stubber = stubbed("sagemaker")
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-app/app-ABCDEFGHIJKL"
    stubber.add_response("describe_mlflow_app", {"Status": "Created"}, {"Arn": arn})
    assert levels(check_managed_mlflow(arn, region=REGION, sagemaker=sagemaker)) == ["ok"]


def test_a_missing_managed_mlflow_is_named() -> None:
    sagemaker, stubber = stubbed("sagemaker")
    stubber.add_client_error("describe_mlflow_tracking_server", "ResourceNotFound", "none")
    text = problem(check_managed_mlflow(SERVER, region=REGION, sagemaker=sagemaker))
    assert text == f"{SERVER!r} does not exist. Create it, or fix DARKROOM_MLFLOW_URI."


@pytest.mark.parametrize(
    ("arn", "sentence"),
    [
        ("arn:aws:s3:::photos", "is no ARN of a managed MLflow"),
        (SERVER.replace(REGION, "us-east-1"), "lies in us-east-1, the jobs would run in eu-west-1"),
    ],
)
def test_a_wrong_arn_of_a_managed_mlflow_is_named(arn: str, sentence: str) -> None:
    sagemaker, _ = stubbed("sagemaker")
    assert sentence in problem(check_managed_mlflow(arn, region=REGION, sagemaker=sagemaker))
