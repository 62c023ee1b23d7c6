"""Which engine is chosen, by figures that are made up and by some that are measured."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.base.errors import UserError
from darkroom.compilation import measurement
from darkroom.compilation.measurement import bundle_for, choose, judged, measure
from darkroom.compilation.results import CompilationReport, EngineResult, generated_images, prepared
from darkroom.config.sections import CompilationConfig
from darkroom.models.bundle import Bundle, read_bundle
from darkroom.reports.compilation_page import compilation_page
from measured_engines import measured
from packed_bundles import packed_bundle
from small_bundles import write_small_bundle


@pytest.mark.parametrize(
    ("objective", "values"),
    [
        ("latency", {"latency_ms": 5.0}),
        ("throughput", {"images_per_second": {1: 90.0, 8: 300.0, 32: 200.0}}),
        ("memory", {"memory_mb": 20.0}),
        ("size", {"size_mb": 2.0}),
    ],
)
def test_the_objective_decides(objective: Any, values: dict[str, Any]) -> None:
    results = [measured("onnxruntime"), measured("openvino", **values), measured("torch")]
    chosen, reason = choose(results, config=CompilationConfig(objective=objective))
    assert chosen == "openvino"
    assert objective in reason


def test_a_gain_within_the_margin_is_noise() -> None:
    results = [measured("onnxruntime"), measured("openvino", latency_ms=9.5)]
    chosen, reason = choose(results, config=CompilationConfig(margin=0.1))
    assert chosen == "onnxruntime"
    assert "within the margin" in reason
    assert choose(results, config=CompilationConfig(margin=0.01))[0] == "openvino"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"probability_difference": 0.02}, "differ from torch's by up to 0.02"),
        ({"probability_difference": float("nan")}, "nan"),
        ({"top1_agreement": 0.9}, "90.0% of the images"),
    ],
)
def test_an_engine_that_disagrees_with_torch_may_not_be_chosen(
    values: dict[str, Any], words: str
) -> None:
    config = CompilationConfig()
    fast = judged(measured("openvino-bf16", latency_ms=1.0, **values), config=config)
    assert not fast.is_eligible
    assert words in fast.problem
    assert choose([measured("onnxruntime"), fast], config=config)[0] == "onnxruntime"


def test_looser_thresholds_admit_it() -> None:
    config = CompilationConfig(maximum_probability_difference=0.1, minimum_top1_agreement=0.8)
    fast = measured(
        "openvino-bf16", latency_ms=1.0, probability_difference=0.02, top1_agreement=0.9
    )
    assert choose([measured("onnxruntime"), judged(fast, config=config)], config=config)[0] == (
        "openvino-bf16"
    )


def test_without_any_usable_engine_the_default_stays() -> None:
    results = [EngineResult(engine="openvino", problem="not installed")]
    chosen, reason = choose(results, config=CompilationConfig())
    assert (chosen, reason[:9]) == ("onnxruntime", "no engine")


def test_a_compiled_bundle_is_the_same_model_with_another_engine(tmp_path: Path) -> None:
    bundle = read_bundle(write_small_bundle(tmp_path / "bundle"))
    compiled = bundle_for(bundle, engine="openvino", folder=tmp_path / "compiled")
    read = read_bundle(compiled.folder).metadata
    assert (read.engine, read.version) == ("openvino", bundle.metadata.version)
    assert read.files == bundle.metadata.files
    bundle_for(bundle, engine="torch", folder=tmp_path / "compiled")
    assert read_bundle(compiled.folder).metadata.engine == "torch"


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    bundle = read_bundle(write_small_bundle(tmp_path / "bundle"))
    (tmp_path / "photographs").mkdir()
    with pytest.raises(UserError, match="no model bundle"):
        bundle_for(bundle, engine="torch", folder=tmp_path / "photographs")


def test_generated_pictures_are_varied_and_the_same_each_time() -> None:
    images = generated_images(24, count=16)
    assert images.shape == (16, 3, 24, 24)
    assert images.std(axis=0).mean() > 0.5
    assert np.array_equal(images, generated_images(24, count=16))


def test_no_images_to_compare_on_is_said(tmp_path: Path) -> None:
    how = read_bundle(write_small_bundle(tmp_path / "bundle")).metadata.preprocessing
    with pytest.raises(UserError, match="no images"):
        prepared([], how=how, most=3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return packed_bundle(tmp_path_factory.mktemp("packed"))


def report_of(bundle: Bundle, **config: Any) -> CompilationReport:
    settings = CompilationConfig(rounds=1, **config)
    size = bundle.metadata.preprocessing.image_size
    return measure(bundle, images=generated_images(size, count=16), config=settings)


@pytest.mark.slow
def test_engines_are_measured_in_processes_of_their_own_and_agree(bundle: Bundle) -> None:
    report = report_of(bundle)
    assert [result.engine for result in report.results] == ["onnxruntime", "openvino", "torch"]
    for result in report.results:
        assert result.is_eligible, result.problem
        assert result.measurement
        assert result.measurement.latency_ms > 0
        assert result.measurement.top1_agreement == 1
    assert report.result("torch").measurement.probability_difference == 0
    assert report.metrics()["latency_ms_onnxruntime"] > 0


@pytest.mark.slow
def test_an_engine_that_crashes_or_is_missing_is_a_row_and_not_the_end(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = measurement.subprocess.Popen

    def crash_openvino(command: list[str], **options: Any) -> Any:
        if "openvino" in command:
            command = [command[0], "-c", "import sys; sys.exit('told to die')"]
        return start(command, **options)

    monkeypatch.setattr(measurement.subprocess, "Popen", crash_openvino)
    monkeypatch.setattr(measurement, "is_installed", lambda name: name != "openvino-bf16")
    report = report_of(bundle, engines=("onnxruntime", "openvino", "openvino-bf16"))
    assert "told to die" in report.result("openvino").problem
    assert "darkroom[openvino]" in report.result("openvino-bf16").problem
    assert report.result("onnxruntime").is_eligible
    assert report.chosen == "onnxruntime"


def test_the_page_is_complete_in_itself_and_says_what_was_chosen() -> None:
    report = CompilationReport(
        architecture="resnet18",
        version="abc",
        image_size=224,
        machine="a processor",
        threads=1,
        rounds=5,
        images=64,
        objective="latency",
        results=(
            measured("onnxruntime", latency_ms=2.0),
            EngineResult(engine="openvino", problem="not installed: <b>pip</b>"),
            measured("openvino-bf16", problem="probabilities differ"),
            measured("torch"),
        ),
        chosen="onnxruntime",
        reason="best latency of 2",
        tvm_problem="TVM is not installed",
    )
    page = compilation_page(report)
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    assert "5.00×" in page
    assert "&lt;b&gt;pip" in page
    assert "openvino-bf16 is not eligible: probabilities differ" in page
    assert "Neo compiles PyTorch up to 2.0" in page
    assert "TVM is not installed" in page
