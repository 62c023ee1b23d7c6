"""Every engine says the same of the same images, and who is missing says what to install."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from darkroom.engines import choosing
from darkroom.engines.choosing import choose_engine
from darkroom.engines.protocol import EXTRAS, EngineName
from darkroom.errors import UserError
from darkroom.model.bundle import ONNX_FILE, Bundle, read_bundle
from darkroom.prediction import Predictor
from packed_bundles import packed_bundle
from small_bundles import rewrite_digests, write_small_bundle

ALL: tuple[EngineName, ...] = tuple(EXTRAS)
EXACT: tuple[EngineName, ...] = ("onnxruntime", "openvino", "torch")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A really exported network, of random weights."""
    return packed_bundle(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def images(bundle: Bundle) -> np.ndarray:
    side = bundle.metadata.preprocessing.image_size
    return np.random.default_rng(5).normal(size=(6, 3, side, side)).astype(np.float32)


@pytest.mark.parametrize("engine", EXACT)
def test_an_engine_computes_what_onnx_runtime_does(
    bundle: Bundle, images: np.ndarray, engine: EngineName
) -> None:
    expected = Predictor.load(bundle.folder, threads=1).probabilities(images)
    predictor = Predictor.load(bundle.folder, threads=1, engine=engine)
    assert predictor.engine.name == engine
    np.testing.assert_allclose(predictor.probabilities(images), expected, atol=1e-5)
    predictor.self_test()


def test_bfloat16_is_close_and_proves_itself_within_its_own_bounds(
    bundle: Bundle, images: np.ndarray
) -> None:
    expected = Predictor.load(bundle.folder, threads=1).probabilities(images)
    predictor = Predictor.load(bundle.folder, threads=1, engine="openvino-bf16")
    np.testing.assert_allclose(predictor.probabilities(images), expected, atol=0.1)
    predictor.self_test()


@pytest.mark.parametrize("engine", ALL)
def test_an_engine_can_be_asked_by_several_threads_at_once(
    bundle: Bundle, images: np.ndarray, engine: EngineName
) -> None:
    predictor = Predictor.load(bundle.folder, threads=1, engine=engine)
    expected = [predictor.probabilities(images[n : n + 1])[0] for n in range(6)]

    def ask(number: int) -> bool:
        got = predictor.probabilities(images[number % 6 : number % 6 + 1])[0]
        return bool(np.allclose(got, expected[number % 6], atol=1e-5))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(48)))


def without(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = choosing.find_spec
    monkeypatch.setattr(choosing, "find_spec", lambda name: None if name == engine else found(name))


@pytest.mark.parametrize(
    ("engine", "module", "extra"),
    [("openvino", "openvino", "darkroom[openvino]"), ("torch", "torch", "darkroom[train]")],
)
def test_an_engine_that_is_missing_says_what_to_install(
    bundle: Bundle, engine: EngineName, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(module, monkeypatch)
    with pytest.raises(UserError, match="not installed") as caught:
        Predictor.load(bundle.folder, engine=engine)
    assert extra in str(caught.value)


def test_the_bundles_engine_is_taken_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = read_bundle(write_small_bundle(tmp_path / "bundle")).metadata
    compiled = metadata.model_copy(update={"engine": "openvino"})
    assert choose_engine(None, metadata=metadata) == "onnxruntime"
    assert choose_engine(None, metadata=compiled) == "openvino"
    assert choose_engine("torch", metadata=compiled) == "torch"
    without("openvino", monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert choose_engine(None, metadata=compiled) == "onnxruntime"
    assert "darkroom[openvino]" in caplog.text


def test_openvino_refuses_a_file_that_is_no_network(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    (bundle / ONNX_FILE).write_bytes(b"no network")
    rewrite_digests(bundle)
    with pytest.raises(UserError, match="OpenVINO cannot load"):
        Predictor.load(bundle, engine="openvino")


def test_the_default_needs_neither_of_the_others() -> None:
    check = (
        "import sys; import darkroom.engines.choosing, darkroom.engines.onnx_runtime\n"
        "found = {'torch', 'openvino'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
