"""What the supervisor knows of a crash, and how it goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from test_serving_supervisor import running, server_of

from darkroom.serving.supervisor import Witness
from served import encoded
from small_bundles import write_small_bundle

ONE, OTHER = b"1" * 32, b"2" * 32


def supervised(body: str, *, changes: str = "") -> "subprocess.CompletedProcess[str]":
    """Run `serve` under a supervisor whose event log is what it prints."""
    program = f"""
import os, signal, time
from darkroom.serving import supervisor
from darkroom.serving.supervisor import Witness
{changes}
supervisor._PAUSE_SECONDS = supervisor._LONGEST_PAUSE_SECONDS = 0.01
witness = Witness()
def serve(restarts, ready):
    supervisor.handle_signals()
{body}
def say(event, **fields):
    print(event, *fields.values(), flush=True)
code = supervisor.supervise(serve, say=say, witness=witness)
print("code", code)
"""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )


def test_requests_under_way_in_a_crash_are_named_refused_and_no_reason_to_give_up() -> None:
    done = supervised("""
    ready()
    digest = bytes([restarts + 1]) * 32
    if restarts == 9:
        refused = [n for n in range(1, 10) if witness.is_refused(bytes([n]) * 32)]
        print("refused", refused)
        return 0
    with witness.watch(digest):
        os.kill(os.getpid(), signal.SIGSEGV)
""")
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert lines[:2] == ["restarting SIGSEGV 1", "was_under_way " + "01" * 32 + " 1"]
    assert lines[-2:] == [f"refused {list(range(1, 10))}", "code 0"]


def test_crashes_with_nothing_under_way_are_given_up() -> None:
    done = supervised("""
    ready()
    os.kill(os.getpid(), signal.SIGSEGV)
""")
    assert done.stdout.splitlines()[-2:] == ["gave_up SIGSEGV 6", "code 1"]


def test_a_model_that_does_not_start_any_more_is_given_up() -> None:
    done = supervised("""
    if restarts:
        return 3
    ready()
    with witness.watch(b"1" * 32):
        os.kill(os.getpid(), signal.SIGSEGV)
""")
    assert "gave_up exit code 3" in done.stdout
    assert done.stdout.splitlines()[-1] == "code 1"


def test_a_process_without_a_sign_of_life_is_replaced() -> None:
    done = supervised(
        """
    ready()
    if restarts:
        return 0
    os.kill(os.getpid(), signal.SIGSTOP)
""",
        changes="supervisor._LOOKS_WITHOUT_LIFE, supervisor._LOOK_SECONDS = 3, 0.05",
    )
    assert done.stdout.splitlines()[-3:] == [
        "no_sign_of_life 0.15000000000000002",
        "restarting SIGKILL 1",
        "code 0",
    ]


def test_of_several_requests_only_those_of_two_crashes_are_refused() -> None:
    witness = Witness()
    with witness.watch(ONE), witness.watch(OTHER):
        both = witness.under_way()
    assert witness.under_way() == []
    witness.suspect(both)
    assert not witness.is_refused(ONE)
    witness.suspect([ONE.hex(), (b"3" * 32).hex()])
    assert witness.is_refused(ONE)
    assert not witness.is_refused(OTHER)


def test_the_list_of_suspects_is_bounded() -> None:
    witness = Witness()
    for number in range(2000):
        witness.suspect([number.to_bytes(32, "big").hex()])
    assert not witness.is_refused((0).to_bytes(32, "big"))
    assert witness.is_refused((1999).to_bytes(32, "big"))


def test_more_requests_than_slots_are_answered_all_the_same() -> None:
    witness, names = Witness(), [os.urandom(32) for _ in range(300)]
    managers = [witness.watch(name) for name in names]
    for manager in managers:
        manager.__enter__()
    assert len(witness.under_way()) == 256
    for manager in managers:
        manager.__exit__(None, None, None)
    assert witness.under_way() == []


def test_a_stopped_server_ends_within_seconds(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    with running(str(bundle)) as (supervisor, client):
        assert client.send(body=encoded()).status == 200
        server_of(supervisor).send_signal(signal.SIGSTOP)
        started = time.monotonic()
        supervisor.terminate()
        assert supervisor.wait(20) == 0
        assert time.monotonic() - started < 10
