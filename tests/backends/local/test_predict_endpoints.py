"""Local endpoints that are kept: recorded, listed, asked by name, and ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from commands.down import remove
from commands.endpoints import list_endpoints
from darkroom.backends.endpoint import Endpoint
from darkroom.backends.local import records
from darkroom.backends.local.backend import LocalBackend
from darkroom.backends.local.endpoint import record_of, start_endpoint, stop_endpoint
from darkroom.backends.local.records import address_of, end_kept, keep_endpoint, kept_endpoints
from darkroom.base.errors import UserError
from darkroom.base.progress import SILENT
from darkroom.config import DeploymentConfig
from darkroom.models.bundle import Bundle, read_bundle
from small_bundles import write_small_bundle

_FOREIGN = {"expired": False, "yes": True, "stack": "local", "everything": False}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(write_small_bundle(tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    for kept in kept_endpoints():
        end_kept(kept)


@pytest.fixture
def sleeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In place of the server a process that does nothing: it is known by its environment."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(bundle: Path, *, environment: dict[str, str], **_: object) -> Endpoint:
        process = subprocess.Popen(
            [sys.executable, "-Sc", "import time; print(flush=True); time.sleep(60)"],
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert process.stdout
        process.stdout.read(1)  # by now it has the environment
        process.stdout.close()
        begun.append(process)
        return Endpoint(url="http://127.0.0.1:1", pid=process.pid, log=tmp_path / "log")

    (tmp_path / "darkroom-home" / "endpoints").mkdir(parents=True)
    monkeypatch.setattr(records, "start_endpoint", start)
    yield
    for process in begun:
        process.kill()
        process.wait()


def test_a_kept_endpoint_is_known_by_name_until_it_is_ended(bundle: Bundle) -> None:
    backend = LocalBackend("run-7")
    endpoint = backend.deploy(
        bundle, name="pets", deployment=DeploymentConfig(), keep=True, progress=SILENT
    )
    (kept,) = kept_endpoints()
    assert (kept.name, kept.run, kept.model_version) == ("pets", "run-7", bundle.metadata.version)
    assert address_of("pets") == kept.url == endpoint.url
    backend.remove(endpoint)
    assert kept_endpoints() == []
    assert not record_of("pets").exists()
    assert not psutil.pid_exists(kept.pid)


def test_one_that_is_not_kept_has_no_record(bundle: Bundle) -> None:
    endpoint = start_endpoint(bundle.folder)
    assert kept_endpoints() == []
    stop_endpoint(endpoint)


@pytest.mark.usefixtures("sleeping")
def test_a_name_that_is_taken_gets_a_number_and_an_odd_one_becomes_a_files(bundle: Bundle) -> None:
    names = [keep_endpoint(bundle, name=name).name for name in ("a/b", "a/b", "../..", "a/b")]
    assert names == ["a-b", "a-b-2", "endpoint", "a-b-3"]


@pytest.mark.usefixtures("sleeping")
def test_one_that_has_died_is_forgotten_and_its_name_is_free(bundle: Bundle) -> None:
    endpoint = keep_endpoint(bundle, name="pets")
    os.kill(endpoint.pid, signal.SIGKILL)
    os.waitpid(endpoint.pid, 0)
    assert kept_endpoints() == []
    assert not record_of("pets").exists()
    assert keep_endpoint(bundle, name="pets").name == "pets"


@pytest.mark.usefixtures("sleeping")
def test_a_process_that_got_the_id_of_a_dead_one_is_left_alone(bundle: Bundle) -> None:
    endpoint = keep_endpoint(bundle, name="pets")
    (kept,) = kept_endpoints()
    stranger = kept.model_copy(update={"pid": os.getpid()})
    record_of("pets").write_text(stranger.model_dump_json())
    end_kept(stranger)  # would end this very process
    assert not record_of("pets").exists()
    stop_endpoint(endpoint)


@pytest.mark.usefixtures("sleeping")
def test_a_record_that_is_damaged_is_removed(bundle: Bundle) -> None:
    record_of("broken").write_text('{"name": "broken"')
    assert kept_endpoints() == []
    assert not record_of("broken").exists()


@pytest.mark.usefixtures("sleeping")
def test_endpoints_lists_them_and_down_ends_the_one_that_is_named(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in ("one", "two", "three"):
        keep_endpoint(bundle, name="pets", run=run)
    list_endpoints(stack="local", as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == ["pets", "pets-2", "pets-3"]
    assert "token" not in listed[0]
    remove(name="pets-2", run=None, **_FOREIGN)
    remove(name=None, run="three", **_FOREIGN)
    assert [kept.name for kept in kept_endpoints()] == ["pets"]
    remove(name=None, run=None, **_FOREIGN | {"everything": True})
    list_endpoints(stack="local", as_json=False)
    assert "No endpoints are kept" in capsys.readouterr().out


def test_down_says_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no endpoint 'pets' on this machine"):
        remove(name="pets", run=None, **_FOREIGN)
    with pytest.raises(UserError, match="run 'one'"):
        remove(name=None, run="one", **_FOREIGN)
    with pytest.raises(UserError, match="no time to live"):
        remove(name=None, run=None, **_FOREIGN | {"expired": True})
    remove(name=None, run=None, **_FOREIGN | {"everything": True})
    assert "Nothing to remove" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:80/", "http://localhost:80"),
        ("http://127.0.0.2:1/invocations", "http://127.0.0.2:1"),
        ("http://[::1]:5", "http://[::1]:5"),
    ],
)
def test_an_address_of_this_machine_will_do(address: str, expected: str) -> None:
    assert address_of(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "http://10.0.0.1:8080",
        "http://example.com",
        "https://127.0.0.1",
        "ftp://127.0.0.1",
        "http://127.0.0.1:99999",
        "http://127.0.0.1/elsewhere",
        "http://127.0.0.1@example.com/",
        "http://[::1",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="no address of an endpoint on this machine"):
        address_of(address)


@pytest.mark.usefixtures("sleeping")
def test_an_unknown_name_is_told_with_those_that_are_known(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="none is kept"):
        address_of("pets")
    keep_endpoint(bundle, name="cats")
    with pytest.raises(UserError, match="there are 'cats'"):
        address_of("pets")
