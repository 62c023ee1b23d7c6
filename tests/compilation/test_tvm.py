"""What TVM tells of a network: by made-up tensors, and by TVM itself where it is installed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from darkroom.compilation import tvm
from darkroom.compilation.measurement import _look_inside
from darkroom.compilation.results import generated_images
from darkroom.compilation.tvm import Call, closest, compared
from darkroom.models.bundle import ONNX_FILE, Bundle
from darkroom.models.engine import Floats
from image_files import CHECKOUT
from packed_bundles import packed_bundle

pytestmark = pytest.mark.slow  # they compile

needs_tvm = pytest.mark.skipif(
    not (CHECKOUT / ".venv-tvm" / "bin" / "python").is_file(), reason="needs `make tvm`"
)


def tensors(number: int = 4, shape: tuple[int, ...] = (1, 3, 4, 5)) -> list[Floats]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=shape).astype(np.float32) for _ in range(number)]


def calls(outputs: Sequence[Floats]) -> list[Call]:
    return [Call(f"kernel{n}", 1.0 + n, output) for n, output in enumerate(outputs)]


def test_kernels_that_compute_what_torch_does_do_not_deviate() -> None:
    ours = tensors()
    operators, first = compared(calls([t + 1e-6 for t in ours]), tensors=ours)
    assert first == ""
    assert [operator.name for operator in operators] == [f"kernel{n}" for n in range(4)]
    assert all(operator.difference is not None for operator in operators)
    assert max(operator.difference or 0 for operator in operators) < 1e-5


def test_the_first_kernel_that_computes_something_else_is_named() -> None:
    ours = tensors()
    theirs = [ours[0], ours[1] * 1.05, ours[2] + 0.1, ours[3] - 0.2]
    operators, first = compared(calls(theirs), tensors=ours)
    assert first == "kernel1"
    assert (operators[1].difference or 0) > 1e-2


def test_a_half_of_an_operator_of_torchs_is_no_deviation() -> None:
    ours = tensors()
    theirs = [ours[0], ours[1] * 3, ours[1], ours[3]]
    operators, first = compared(calls(theirs), tensors=ours)
    assert first == ""
    assert operators[1].difference is None


def test_of_a_kernel_that_is_called_often_the_call_is_named() -> None:
    ours = tensors()
    named = [Call("conv", 2.0, output) for output in (ours[0], ours[1], ours[2] * 1.1)]
    operators, first = compared(named, tensors=ours)
    assert first == "conv, call 3 of 3"
    assert (operators[0].calls, operators[0].ms) == (3, 6.0)


def test_layouts_do_not_count() -> None:
    (tensor,) = tensors(1)
    assert closest(tensor.transpose(0, 2, 3, 1), tensors=[tensor]) == (0, 0)
    assert closest(tensor[0, :, 0, 0].reshape(1, 3, 1, 1), tensors=[tensor[:, :, 0, 0]]) == (0, 0)


def test_shapes_that_torch_has_not_have_no_counterpart() -> None:
    assert closest(np.ones((1, 7), dtype=np.float32), tensors=tensors()) is None
    assert closest(np.float32(1) * np.ones(()), tensors=[np.ones(())]) is None


def test_what_is_not_a_number_deviates() -> None:
    ours = tensors()
    broken = ours[3].copy()
    broken[0, 0, 0, 0] = np.nan
    assert compared(calls([*ours[:3], broken]), tensors=ours)[1] == "kernel3"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return packed_bundle(tmp_path_factory.mktemp("packed"))


def look(bundle: Bundle) -> tuple[tvm.TvmInsight | None, str]:
    size = bundle.metadata.preprocessing.image_size
    return _look_inside(bundle, images=generated_images(size, count=8))


@pytest.mark.parametrize(
    ("program", "words"),
    [(None, "is no file"), ("#!/bin/sh\necho boom >&2\nexit 3\n", "TVM failed: boom")],
)
def test_an_environment_that_is_missing_or_fails_is_a_sentence(
    program: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    if program:
        python.write_text(program)
        python.chmod(0o755)
    monkeypatch.setenv(tvm.PYTHON_VARIABLE, str(python))
    with pytest.raises(tvm.TvmError, match=words):
        tvm._run(tmp_path / "model.onnx", images=generated_images(8, count=8))


def test_without_the_environment_the_report_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    monkeypatch.delenv(tvm.PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(tvm, "_CHECKOUT", tmp_path)
    assert look(bundle) == (None, "TVM is not installed: run `make tvm`")


@needs_tvm
def test_tvm_agrees_with_torch_on_a_sound_network(bundle: Bundle) -> None:
    found, problem = look(bundle)
    assert found, problem
    assert found.first_deviation == ""
    assert found.probability_difference < 1e-4
    assert found.latency_ms > 0


@needs_tvm
def test_a_changed_weight_is_found_where_it_is(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(bundle.folder, folder)
    network = onnx.load(folder / ONNX_FILE)
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    name = convolutions[len(convolutions) // 2].input[1]
    weights = next(t for t in network.graph.initializer if t.name == name)
    changed = onnx.numpy_helper.to_array(weights) * np.float32(1.5)
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, name))
    onnx.save(network, folder / ONNX_FILE)
    found, problem = look(Bundle(folder, bundle.metadata))
    assert found, problem
    assert "conv" in found.first_deviation
    names = [operator.name for operator in found.operators]
    position = names.index(found.first_deviation.partition(",")[0])
    assert 0.2 < position / len(names) < 0.8
