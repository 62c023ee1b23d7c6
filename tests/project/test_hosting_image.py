"""The hosting image's environment: how small it is, and in how bare a place it serves."""

import contextlib
import http.client
import io
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.hosting_environment import HOSTING_LOCK, size_mb, variables
from checkout import TESTS
from image_files import installed
from small_bundles import write_small_bundle

pytestmark = pytest.mark.slow  # an environment is installed

MAXIMUM_MB = 300
READY_SECONDS = 30
JAIL = TESTS / "shared" / "read_only_jail.py"
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount")
FOREIGN = ("torch", "torchvision", "zenml", "mlflow", "boto3", "requests")

PROBE = """
import json, os, subprocess
def possible(work):
    try:
        work()
    except OSError:
        return False
    return True
folders = ["/tmp", "/var/tmp", "/dev/shm", "/run", os.getcwd(), os.path.dirname(os.__file__)]
print(json.dumps({
    "user": os.getuid(),
    "variables": sorted(set(os.environ) - {"LC_CTYPE"}),
    "writable": [f for f in folders if possible(lambda: open(os.path.join(f, "probe"), "w"))],
    "shell": possible(lambda: subprocess.run(["/bin/sh", "-c", "exit"])),
}))
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from installed(HOSTING_LOCK, root=tmp_path_factory.mktemp("hosting"), exact=True)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "model")


def test_it_takes_at_most_300_mb(programs: Path) -> None:
    assert 50 < size_mb(programs.parent) <= MAXIMUM_MB


def test_it_holds_a_server_and_nothing_to_install_or_to_train_with(programs: Path) -> None:
    names = {path.name for path in programs.iterdir()}
    assert "serve" in names
    assert names & {"pip", "uv", "pytest", "zenml", "mlflow"} == set()
    script = (
        "import importlib.util as u, sys\n"
        "print([name for name in sys.argv[1:] if u.find_spec(name)])"
    )
    command = [programs / "python", "-I", "-c", script, *FOREIGN, "onnxruntime"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['onnxruntime']"


def test_it_serves_with_the_variables_of_its_dockerfile(programs: Path, bundle: Path) -> None:
    with served(bundle, command=[str(programs / "serve")], environment=variables(programs)) as port:
        assert top_class(port) == "red"


def test_it_serves_as_anybody_read_only_and_without_a_shell(programs: Path, bundle: Path) -> None:
    jail = [*NAMESPACES, sys.executable, "-I", "-S", str(JAIL)]
    environment = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"}
    place = jailed_place([*jail, str(programs / "python"), "-c", PROBE], environment=environment)
    assert place == {"user": 1000, "variables": ["PATH"], "writable": [], "shell": False}
    with served(bundle, command=[*jail, "serve"], environment=environment) as port:
        assert top_class(port) == "red"


def jailed_place(command: list[str], *, environment: dict[str, str]) -> object:
    if shutil.which("unshare") is None:
        pytest.skip("this machine has no unshare")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"namespaces and read-only mounts are not allowed here: {done.stderr[-300:]}")
    return json.loads(done.stdout)


@contextlib.contextmanager
def served(bundle: Path, *, command: list[str], environment: dict[str, str]) -> Iterator[int]:
    """The port of a server that is ready; it has to end well when it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = [*command, "serve", str(bundle), "--port", str(port), "--host", "127.0.0.1"]
    with subprocess.Popen(command, env=environment, cwd=bundle.parent) as server:
        try:
            wait_until_ready(port, server=server)
            yield port
        finally:
            server.terminate()
    assert server.returncode == 0


def wait_until_ready(port: int, *, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        assert server.poll() is None, f"the server ended with code {server.returncode}"
        with contextlib.suppress(OSError):
            if request(port, method="GET", path="/ping")[0] == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def top_class(port: int) -> object:
    image = io.BytesIO()
    Image.new("RGB", (24, 20), "red").save(image, "JPEG")
    status, answer = request(port, method="POST", path="/invocations", body=image.getvalue())
    assert status == 200, answer
    return json.loads(answer)["class"]


def request(port: int, *, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.request(method, path, body=body, headers={"Content-Type": "image/jpeg"})
        answer = client.getresponse()
        return answer.status, answer.read()
