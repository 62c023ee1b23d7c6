"""A server of the stand-in that is gone ends the command that waits for it."""

import socket
import subprocess
import sys
import time

import pytest

from darkroom.errors import DarkroomError
from rehearsal.watch import watched

WAITING = """
import sys, time, threading
from rehearsal.watch import watched
from darkroom.errors import DarkroomError
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
