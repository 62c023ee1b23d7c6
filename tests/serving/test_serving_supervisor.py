"""A serving process that crashes is started again, and says so."""

import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

import psutil
import pytest

from served import Client, encoded, program
from small_bundles import write_small_bundle


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_small_bundle(folder / "first")
    write_small_bundle(folder / "second", classes=("b", "g", "r"))
    return folder


Supervisor: TypeAlias = "subprocess.Popen[str]"


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[tuple[Supervisor, Client]]:
    """The program, once it says where it serves."""
    with program("serve", *arguments, "--port", "0", **environment) as child:
        try:
            line = child.stdout.readline()
            yield child, Client(int(line.strip().rstrip('"}').rsplit(":", 1)[1]))
        finally:
            child.terminate()
            assert child.wait(20) is not None


def server_of(supervisor: Supervisor) -> psutil.Process:
    (server,) = psutil.Process(supervisor.pid).children()
    return server


def crash(supervisor: Supervisor) -> None:
    server = server_of(supervisor)
    server.send_signal(signal.SIGSEGV)
    server.wait(10)


def test_a_crashed_process_is_replaced_and_the_replacement_says_so(models: Path) -> None:
    with running(str(models / "first")) as (supervisor, client):
        first = server_of(supervisor).pid
        crash(supervisor)
        # The socket is still there: the request waits until somebody serves again.
        assert client.send(body=encoded("red")).content["class"] == "red"
        assert client.send("GET", "/ping").content["restarts"] == 1
        assert b"darkroom_restarts 1.0" in client.send("GET", "/metrics").content
        assert server_of(supervisor).pid != first
        supervisor.terminate()
        assert "restarting reason=SIGSEGV" in supervisor.stderr.read()


def test_models_that_were_loaded_are_known_after_a_crash(models: Path) -> None:
    environment = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BASE_DIR": str(models.parent)}
    link = models.parent / "models"
    if not link.exists():
        link.symlink_to(models)
    with running(**environment) as (supervisor, client):
        order = {"model_name": "abc", "url": str(models / "second")}
        loaded = client.send(
            path="/models", body=json.dumps(order).encode(), content_type="application/json"
        )
        assert loaded.status == 200
        crash(supervisor)
        answer = client.send(path="/models/abc/invoke", body=encoded("red"))
        assert (answer.status, answer.content["class"]) == (200, "r")


def test_a_process_that_never_gets_ready_is_not_started_again(models: Path) -> None:
    started = time.monotonic()
    with program("serve", str(models / "missing"), "--port", "0") as child:
        assert child.wait(20) == 2
        assert "no model bundle" in child.stderr.read()
    assert time.monotonic() - started < 15


def test_a_crash_right_after_the_announcement_is_a_crash_of_one_that_was_ready(
    models: Path,
) -> None:
    """Else the supervisor would take it for one that can't start, and end too."""
    until_ready = f"""
import os, pathlib, socket
from darkroom.serving.decoder_process import DecoderSource
from darkroom.serving.process import serve_task
from darkroom.serving.program import Task
from darkroom.serving.supervisor import Witness
with socket.create_server(("127.0.0.1", 0)) as listening:
    place = pathlib.Path({str(models / "first")!r})
    task = Task(place, is_multi_model=False, in_container=False, flags={{}})
    serve_task(
        task, listening=listening, journal=None, source=DecoderSource(),
        witness=Witness(), restarts=0,
        ready=lambda: os._exit(3),
    )
"""
    ended = subprocess.run(
        [sys.executable, "-c", until_ready], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "")


@pytest.mark.slow
def test_one_that_crashes_again_and_again_is_given_up(models: Path) -> None:
    with running(str(models / "first")) as (supervisor, client):
        for restarts in range(5):
            crash(supervisor)
            assert client.send("GET", "/ping").content["restarts"] == restarts + 1
        crash(supervisor)
        assert supervisor.wait(20) == 1
        assert "gave_up" in supervisor.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_is_passed_on_and_leaves_nothing(models: Path, number: int) -> None:
    with running(str(models / "first")) as (supervisor, client):
        server = server_of(supervisor)
        assert client.send(body=encoded()).status == 200
        supervisor.send_signal(number)
        assert supervisor.wait(30) == 0
        assert not server.is_running()


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.2, 0.4, 0.6, 0.8])
def test_an_end_that_comes_while_it_starts_is_not_lost(models: Path, moment: float) -> None:
    with program("serve", str(models / "first"), "--port", "0") as child:
        time.sleep(0.1 + moment)  # Python itself takes as long until it handles signals
        child.send_signal(signal.SIGTERM)
        assert child.wait(15) in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_a_killed_supervisor_takes_its_server_with_it(models: Path) -> None:
    with running(str(models / "first")) as (supervisor, _):
        server = server_of(supervisor)
        supervisor.kill()
        server.wait(20)


def test_a_request_under_way_is_answered_before_the_end(models: Path) -> None:
    with running(str(models / "first")) as (supervisor, client):
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
            body = encoded()
            head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:-5])
            # Once another request is answered, the first has been begun too.
            assert client.send("GET", "/ping").status == 200
            supervisor.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(body[-5:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert supervisor.wait(20) == 0


@pytest.mark.slow
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_log_that_nobody_reads_stops_neither_the_server_nor_its_supervisor(
    models: Path, is_gone: bool
) -> None:
    with running(str(models / "first"), "--log", "json") as (supervisor, client):
        for stream in (supervisor.stdout, supervisor.stderr):
            fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, 4096)  # else it takes some hundred requests
            if is_gone:
                stream.close()
        with closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)) as asking:
            for _ in range(100):
                asking.request("GET", "/none")
                assert json.loads(asking.getresponse().read())["error"]
        crash(supervisor)
        assert client.send(body=encoded("red")).content["class"] == "red"
        metrics = client.send("GET", "/metrics").content.decode()
        dropped = float(metrics.partition("\ndarkroom_log_lines_dropped ")[2].split()[0])
        assert (dropped > 0) == is_gone
        started = time.monotonic()
        supervisor.terminate()
        assert supervisor.wait(20) == 0
        assert time.monotonic() - started < 10


def test_the_supervisor_itself_is_small(models: Path) -> None:
    with running(str(models / "first")) as (supervisor, _):
        with open(f"/proc/{supervisor.pid}/maps") as maps:
            assert not any("onnxruntime" in line or "numpy" in line for line in maps)
        assert psutil.Process(supervisor.pid).memory_info().rss < 40 * 2**20
        assert os.getpid() != supervisor.pid
