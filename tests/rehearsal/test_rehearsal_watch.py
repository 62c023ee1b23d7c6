"""A server of the stand-in that is gone ends the command that waits for it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from checkout import CHECKOUT
from darkroom.base.errors import DarkroomError
from rehearsal.session import watched

WAITING = """
import sys, time, threading
from rehearsal.session import watched
from darkroom.base.errors import DarkroomError
try:
    with watched({{"the emulator": sys.argv[1]}}):
        print("up", flush=True)
        {wait}
except DarkroomError as error:
    print("Error:", error, file=sys.stderr)
    sys.exit(1)
"""
PATIENT = "time.sleep(600)"
BUSY = """while True:
            try: time.sleep(600)
            except BaseException: pass"""


@pytest.mark.slow
@pytest.mark.parametrize("wait", [PATIENT, BUSY], ids=["waiting", "swallowing"])
def test_a_command_ends_within_ten_seconds_and_says_what_is_gone(wait: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        code = WAITING.format(wait=wait)
        process = subprocess.Popen(
            [sys.executable, "-c", code, url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stdout.readline() == "up\n"
    closed = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - closed < 10
    assert process.returncode == 1
    assert f"Error: the emulator of the rehearsal has ended, it no longer answers on {url}" in said


def test_an_error_that_its_end_has_caused_is_told_as_what_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        pytest.raises(DarkroomError, match="the emulator of the rehearsal has ended"),
        watched({"the emulator": f"http://127.0.0.1:{port}"}),
    ):
        raise ConnectionError("refused")


def test_other_errors_stay_what_they_are() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ValueError, match="mine"),
        watched({"the emulator": f"http://127.0.0.1:{server.getsockname()[1]}"}),
    ):
        raise ValueError("mine")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_emulator_ends_a_run(tmp_path: Path) -> None:
    """As a user meets it: at whatever it is when its emulator is killed."""
    with (tmp_path / "said").open("w") as said:
        command = subprocess.Popen(
            [sys.executable, str(CHECKOUT / "run.py"), "--stack", "rehearsal"],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), "DARKROOM_HOME": str(tmp_path / "home")},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    family = psutil.Process(command.pid)
    try:
        while "\nRun " not in (tmp_path / "said").read_text():
            assert command.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.1)
        started = family.children(recursive=True)
        (emulator,) = [p for p in started if "rehearsal.emulator.server" in p.cmdline()[1:3]]
        emulator.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        assert command.wait(60) == 1
        assert time.monotonic() - killed < 10
    finally:
        command.kill()
        command.wait()
    assert "the emulator of the rehearsal has ended" in (tmp_path / "said").read_text()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
