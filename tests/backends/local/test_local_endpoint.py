"""An endpoint on this machine, and the check of its answers."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from darkroom.backends.endpoint import Endpoint, EndpointError, content_type_of
from darkroom.backends.local import endpoint as endpoints
from darkroom.backends.local.endpoint import (
    EndpointClient,
    check_endpoint,
    start_endpoint,
    stop_endpoint,
)
from darkroom.base.files import workspace
from darkroom.models.bundle import ONNX_FILE, pack
from darkroom.models.prediction import Predictor
from pictures import write_image_folder
from running_endpoint import local_endpoint
from small_bundles import CLASSES, write_small_bundle

pytestmark = pytest.mark.slow  # they start servers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("endpoint")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return write_small_bundle(folder / "bundle")


@pytest.fixture(scope="module")
def endpoint(folder: Path, bundle: Path) -> Iterator[Endpoint]:
    pack(bundle, folder / "model.tar.gz")
    with local_endpoint(folder / "model.tar.gz", log=folder / "log" / "serve.log") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def images(folder: Path) -> list[Path]:
    root = write_image_folder(folder / "images", per_class=2, suffix=".png")
    write_image_folder(folder / "images", per_class=1, suffix=".jpg")
    return sorted(path for path in root.rglob("*") if path.is_file())


def wait_until(condition: Callable[[], bool], *, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_answers_agree_with_the_predictor(
    endpoint: Endpoint, bundle: Path, images: list[Path]
) -> None:
    expected = Predictor.load(bundle).predict(images)
    check = check_endpoint(
        endpoint, images=images, expected=expected, classes=CLASSES, tolerance=1e-3
    )
    assert check.images == len(images) == 9
    assert check.agreement == 1
    assert check.maximum_difference < 1e-5
    assert 0 < check.latency_ms_p50 <= check.latency_ms_p99


def test_answers_beyond_the_tolerance_or_of_another_class_disagree(
    endpoint: Endpoint, bundle: Path, images: list[Path]
) -> None:
    expected = Predictor.load(bundle).predict(images)
    expected[0] = np.roll(expected[0], 1)
    expected[1] += np.float32(0.01)
    check = check_endpoint(
        endpoint, images=images, expected=expected, classes=CLASSES, tolerance=1e-3
    )
    assert check.agreement == pytest.approx(7 / 9)
    assert check.maximum_difference > 0.1


def test_an_endpoint_with_other_classes_is_found(endpoint: Endpoint, images: list[Path]) -> None:
    with pytest.raises(EndpointError, match="classes"):
        check_endpoint(
            endpoint,
            images=images[:1],
            expected=np.array([[0.5, 0.5]], dtype=np.float32),
            classes=("cat", "dog"),
            tolerance=1e-3,
        )


def test_a_refusal_is_an_error_with_the_servers_words(endpoint: Endpoint) -> None:
    with EndpointClient(endpoint.url) as client:
        with pytest.raises(EndpointError, match=r"400.*not an image"):
            client.invoke(b"no picture", content_type="image/png")
        with pytest.raises(EndpointError, match=r"415.*accepted are"):
            client.invoke(b"no picture", content_type="text/plain")


def test_content_types_follow_the_content(images: list[Path], tmp_path: Path) -> None:
    misnamed = tmp_path / "picture.png"
    misnamed.write_bytes(next(path for path in images if path.suffix == ".jpg").read_bytes())
    (tmp_path / "text.png").write_text("text")
    assert content_type_of(misnamed) == "image/jpeg"
    assert content_type_of(tmp_path / "text.png") == "application/octet-stream"


def test_it_is_stopped_at_the_end_of_the_block_even_if_that_fails(
    bundle: Path, tmp_path: Path
) -> None:
    with (
        contextlib.suppress(RuntimeError),
        local_endpoint(bundle, log=tmp_path / "log") as endpoint,
    ):
        assert not gone(endpoint.pid)
        raise RuntimeError
    assert gone(endpoint.pid)
    with EndpointClient(endpoint.url) as client, pytest.raises(EndpointError, match="not answer"):
        client.invoke(b"", content_type="image/png")


def test_stopping_what_has_ended_is_fine(bundle: Path) -> None:
    endpoint = start_endpoint(bundle)
    assert endpoint.log.is_relative_to(workspace())
    stop_endpoint(endpoint)
    stop_endpoint(endpoint)
    assert gone(endpoint.pid)


def test_an_endpoint_of_sagemaker_is_no_process_of_this_machine(images: list[Path]) -> None:
    endpoint = Endpoint(backend="sagemaker", name="pets")
    with pytest.raises(EndpointError, match="'pets' is no process"):
        stop_endpoint(endpoint)
    with pytest.raises(EndpointError, match="'pets' is no process"):
        check_endpoint(
            endpoint,
            images=images,
            expected=np.zeros((9, 3), dtype=np.float32),
            classes=CLASSES,
            tolerance=1e-3,
        )


def test_a_bundle_that_cannot_be_served_is_told_by_the_servers_words(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    (bundle / ONNX_FILE).write_bytes(b"changed")
    with pytest.raises(EndpointError, match="SHA-256 differs"):
        start_endpoint(bundle, log=tmp_path / "serve.log")


def test_a_server_that_takes_too_long_is_given_up_and_stopped(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeping_server.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(endpoints, "_PROGRAM", "sleeping_server")
    before = psutil.Process().children()
    with pytest.raises(EndpointError, match=r"did not answer .* within"):
        start_endpoint(bundle, log=tmp_path / "serve.log", timeout_seconds=0.2)
    assert all(gone(child.pid) for child in psutil.Process().children() if child not in before)


@pytest.mark.parametrize("keep", [False, True])
def test_only_a_kept_endpoint_outlives_a_parent_that_is_killed(
    bundle: Path, tmp_path: Path, keep: bool
) -> None:
    program = (
        "import time; from pathlib import Path\n"
        "from darkroom.backends.local.endpoint import start_endpoint\n"
        f"endpoint = start_endpoint(Path({str(bundle)!r}), keep={keep})\n"
        "print(endpoint.model_dump_json(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        endpoint = Endpoint.model_validate_json(parent.stdout.readline())
        parent.kill()
    if keep:
        time.sleep(1)  # twice as long as a server that is not kept would need to notice
        assert requests.get(f"{endpoint.url}/ping", timeout=10).ok
        stop_endpoint(endpoint)
    assert wait_until(lambda: gone(endpoint.pid))
