"""Hostile clients get a 4xx with a reason, and nobody else notices them."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import psutil
import pytest

from hostile.attacking import Outcome, attack, bystander, held
from hostile.bodies import body_cases
from hostile.http_cases import raw_cases, slow_cases
from hostile.model_paths import model_cases
from served import Client, encoded, program
from small_bundles import write_small_bundle

BYSTANDERS_PATIENCE = 5.0
GROWTH_MB = 50
SECONDS_TO_TIDY = 45
"""The server gives freed memory back every 20 s."""

Process: TypeAlias = "subprocess.Popen[str]"


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[psutil.Process, Client]]:
    """The process that serves, once it does, and a client; it must live to the end."""
    with program("serve", *arguments, "--port", "0", "--log", "none") as child:
        try:
            line = child.stdout.readline()
            client = Client(int(line.strip().rstrip('"}').rsplit(":", 1)[1]))
            (server,) = psutil.Process(child.pid).children()
            yield server, client
            assert server.is_running()
            assert client.send("GET", "/ping", content_type=None).content["restarts"] == 0
        finally:
            child.terminate()
            child.wait(30)


def megabytes(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


def settled(process: psutil.Process, *, below: float) -> float:
    """The memory once it is below, or when that took too long."""
    until = time.monotonic() + SECONDS_TO_TIDY
    while megabytes(process) >= below and time.monotonic() < until:
        time.sleep(0.2)
    return megabytes(process)


def faults(outcomes: list[Outcome]) -> list[str]:
    return [f"{o.case.kind}, {o.case.name}: {o.fault}" for o in outcomes if o.fault]


@pytest.mark.slow
def test_there_are_more_than_two_hundred_cases() -> None:
    cases = [*body_cases(), *raw_cases(), *slow_cases(), *model_cases()]
    assert len(cases) >= 400
    assert len({case.kind for case in cases}) >= 20


@pytest.mark.slow
def test_every_attack_is_refused_with_a_reason_and_nobody_else_notices(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    with serving(str(bundle), "--allow-urls") as (server, client):
        before = megabytes(server)
        with bystander(client) as other, held(client, slow_cases()) as slow:
            outcomes = [attack(client, case) for case in (*body_cases(), *raw_cases())]
        assert faults([*outcomes, *slow]) == []
        assert {outcome.status for outcome in slow} <= {0, 408}
        assert other.failures == []
        assert other.answers > 100
        assert other.slowest < BYSTANDERS_PATIENCE
        assert settled(server, below=before + GROWTH_MB) < before + GROWTH_MB


@pytest.mark.slow
def test_no_name_of_a_model_leads_out_of_their_folder_while_models_come_and_go(
    tmp_path: Path,
) -> None:
    write_small_bundle(tmp_path / "models" / "first")
    write_small_bundle(tmp_path / "models" / "second")
    target = {"X-Amzn-SageMaker-Target-Model": "first"}
    with serving("--models", str(tmp_path / "models")) as (_, client):
        is_over, answered = threading.Event(), set[int]()
        churning = threading.Thread(target=churn, args=(client, is_over, answered))
        churning.start()
        try:
            with bystander(client, headers=target) as other:
                outcomes = [attack(client, case) for case in model_cases()]
        finally:
            is_over.set()
            churning.join()
        assert faults(outcomes) == []
        assert other.failures == []
        assert answered <= {200, 404, 409}
        assert 200 in answered


def churn(client: Client, is_over: threading.Event, answered: set[int]) -> None:
    """Load, ask and unload another model, again and again."""
    order = '{"model_name": "other", "url": "second"}'
    while not is_over.is_set():
        for method, path, body in (
            ("POST", "/models", order),
            ("POST", "/models/other/invoke", encoded()),
            ("DELETE", "/models/other", None),
        ):
            answered.add(client.send(method, path, body=body, content_type=None).status)
