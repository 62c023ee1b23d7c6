"""Every engine says the same of the same images, and who is missing says what to install."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from darkroom.base.errors import DarkroomError, UserError
from darkroom.compilation.measurement import bundle_for
from darkroom.models import engines
from darkroom.models.bundle import ONNX_FILE, Bundle, read_bundle
from darkroom.models.engine import EXTRAS, EngineName
from darkroom.models.onnx_engine import OnnxRuntimeEngine
from darkroom.models.prediction import Predictor
from darkroom.serving.app import create_app, create_multi_model_app
from darkroom.serving.multi_model import TARGET_MODEL
from packed_bundles import packed_bundle
from served import encoded, served
from small_bundles import rewrite_digests, write_endless_network, write_small_bundle

pytestmark = pytest.mark.slow  # they compile

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
    found = engines.find_spec
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == engine else found(name))


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


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A bundle that was compiled for OpenVINO."""
    bundle = read_bundle(write_small_bundle(tmp_path / "bundle"))
    return bundle_for(bundle, engine="openvino", folder=tmp_path / "compiled").folder


def test_a_bundle_is_run_by_the_engine_that_it_was_compiled_for(compiled: Path) -> None:
    predictor = Predictor.load(compiled)
    assert (predictor.engine.name, predictor.fallback) == ("openvino", "")
    assert Predictor.load(compiled, engine="onnxruntime").fallback == ""
    assert Predictor.load(compiled.parent / "bundle").engine.name == "onnxruntime"


def test_an_engine_that_is_missing_is_said_aloud_and_the_default_runs_the_network(
    compiled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without("openvino", monkeypatch)
    predictor = Predictor.load(compiled)
    assert predictor.engine.name == "onnxruntime"
    assert "darkroom[openvino]" in predictor.fallback
    assert predictor.fallback in caplog.text


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("run", lambda self, batch: np.zeros((len(batch), 3)) / 0), ("__init__", None)],
)
def test_an_engine_that_cannot_run_here_is_said_aloud(
    compiled: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    attribute: str,
    value: object,
) -> None:
    from darkroom.models.openvino_engine import OpenVinoEngine

    with np.errstate(invalid="ignore"):
        monkeypatch.setattr(OpenVinoEngine, attribute, value)
        predictor = Predictor.load(compiled)
    assert predictor.engine.name == "onnxruntime"
    assert "openvino, which cannot run it here" in caplog.text


def test_what_answers_is_visible_in_every_answer(compiled: Path) -> None:
    with served(create_app(Predictor.load(compiled))) as client:
        assert client.send("GET", "/ping").content["engine"] == "openvino"
        answer = client.send(body=encoded())
        assert (answer.content["engine"], answer.headers["x-model-engine"]) == ("openvino",) * 2


def test_several_models_are_each_run_by_their_own_engine(
    compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(create_multi_model_app(compiled.parent)) as client:
        for name, engine in (("compiled", "openvino"), ("bundle", "onnxruntime")):
            target = {TARGET_MODEL: name}
            assert client.send(body=encoded(), headers=target).content["engine"] == engine
            assert client.send("GET", f"/models/{name}").content["engine"] == engine
    without("openvino", monkeypatch)
    with served(create_multi_model_app(compiled.parent)) as client:
        client.send(body=encoded(), headers={TARGET_MODEL: "compiled"})
        described = client.send("GET", "/models/compiled").content
        assert described["engine"] == "onnxruntime"
        assert "not installed" in described["engineFallback"]


def test_openvino_refuses_a_file_that_is_no_network(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    (bundle / ONNX_FILE).write_bytes(b"no network")
    rewrite_digests(bundle)
    with pytest.raises(UserError, match="OpenVINO cannot load"):
        Predictor.load(bundle, engine="openvino")


def test_the_default_needs_neither_of_the_others() -> None:
    check = (
        "import sys; import darkroom.models.engines, darkroom.models.onnx_engine\n"
        "found = {'torch', 'openvino'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_network_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    path = write_endless_network(tmp_path / "model.onnx")
    engine = OnnxRuntimeEngine(path, threads=1, image_size=16, classes=3, seconds=0.2)
    with pytest.raises(DarkroomError, match=r"did not end within 0\.2 s"):
        engine.run(np.zeros((1, 3, 16, 16), dtype=np.float32))
