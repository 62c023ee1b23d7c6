"""Trials with whole tensors: what judging them takes, and what it does with broken ones."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.config.debugging import DiagnosisConfig
from darkroom.debugging.recording.smdebug_writer import SmdebugWriter
from darkroom.debugging.recording.snapshots import Captured, Look
from darkroom.debugging.rules.custom import evidence_of_tensors
from darkroom.debugging.rules.runner import judge
from darkroom.debugging.smdebug_format import decode_record, encode_record
from darkroom.debugging.smdebug_source import read_smdebug_tensors
from darkroom.telemetry.evidence import STATISTICS
from darkroom.telemetry.findings import Diagnosis
from darkroom.telemetry.tensors import Sample, tensor_statistics, unit_shares
from quiet_smdebug import import_smdebug

pytest.importorskip("smdebug", reason="the extra 'debug' is not installed")
import_smdebug()
LARGEST = 8 * 32 * 64 * 64 * 4
"""Bytes of an activation, of a batch of eight with 32 channels."""
WEIGHT = "Network_layer.weight"


def write_trial(folder: Path, *, steps: int, is_small: bool = False) -> Path:
    """Whole tensors without statistics, as smdebug's own hook leaves them: 9 MB a step."""
    random = np.random.default_rng(0)
    side = 4 if is_small else 64
    writer = SmdebugWriter(folder, root="Network", steps_per_epoch=1000)
    for step in range(steps):
        weight = random.standard_normal((8 * side, 16, 3, 3), dtype=np.float32)
        output = random.standard_normal((8, 32, side, side), dtype=np.float32)
        look = Look(mode="train", step=step, full=True)
        look.tensors += [
            Captured("loss", kind="loss", value=np.array(2.0 / (1 + step))),
            Captured("logits", kind="logits", value=output[:, :3, 0, 0]),
            Captured("labels", kind="labels", value=np.arange(8) % 3),
            Captured("layer.weight", kind="weight", value=weight),
            Captured("layer.bias", kind="bias", value=weight[0, 0, 0]),
            Captured("layer.weight", kind="gradient", value=weight),
            Captured("relu", kind="activation_input", value=output),
            Captured("relu", kind="activation", value=np.maximum(output, 0)),
        ]
        writer.write(look)
    writer.close()
    return folder


def judge_trial(trial: Path) -> Diagnosis:
    return judge(evidence_of_tensors(read_smdebug_tensors(trial)), config=DiagnosisConfig())


def peak_bytes(trial: Path) -> int:
    """The most that judging holds at once, of numpy's memory and Python's."""
    tracemalloc.start()
    try:
        judge_trial(trial)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_steps(tmp_path: Path) -> None:
    short, long = (write_trial(tmp_path / str(steps), steps=steps) for steps in (2, 4))
    assert sum(file.stat().st_size for file in long.glob("events/*/*")) > 30_000_000
    judge_trial(short)  # what is imported and remembered on the way is not the trial's
    peaks = peak_bytes(short), peak_bytes(long)
    assert peaks[1] < peaks[0] + LARGEST / 4
    assert peaks[1] < 2 * LARGEST  # one value, and samples of fixed size


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Its first step is sound, and each of the others broken in another way."""
    trial = write_trial(tmp_path / "trial", steps=5, is_small=True)
    events, indices = (sorted(trial.glob(f"{kind}/*/*")) for kind in ("events", "index"))
    events[1].unlink()
    indices[2].write_bytes(indices[2].read_bytes()[:-40])
    _of_unknown_type(events[3], place=_place(indices[3], WEIGHT))
    with events[4].open("r+b") as file:
        file.truncate(_place(indices[4], "relu_output_0")["start_idx"] + 200)
    return trial


def _place(index: Path, name: str) -> dict[str, Any]:
    content = json.loads(index.read_text())
    return next(one for one in content["tensor_payload"] if one["tensorname"] == name)


def _of_unknown_type(events: Path, *, place: dict[str, Any]) -> None:
    """Call a tensor of float32 one of text: TensorFlow's types 1 and 7."""
    content, start = events.read_bytes(), place["start_idx"]
    record = content[start : start + place["length"]]
    changed = record.replace(b"\x08\x01\x12", b"\x08\x07\x12", 1)
    assert decode_record(record) is not None
    assert decode_record(changed) is None
    events.write_bytes(content.replace(record, changed))


def test_a_broken_trial_is_read_as_far_as_it_goes(broken: Path) -> None:
    tensors = read_smdebug_tensors(broken)
    weight = tensors.statistics("layer.weight", kind="weight")
    assert weight.steps.tolist() == [0, 3, 4]  # no event file at 1, a torn index at 2
    assert np.isfinite(weight["std"]).tolist() == [True, False, True]
    output = tensors.statistics("relu", kind="activation")
    assert np.isfinite(output["std"]).tolist() == [True, True, False]
    assert sorted(output.units) == [0, 3]
    values = [tensors.value("layer.weight", kind="weight", step=step) for step in (0, 1, 2, 3)]
    assert [value is None for value in values] == [False, True, True, True]


def test_no_rule_fails_on_a_broken_trial(broken: Path) -> None:
    failed = [rule.reason for rule in judge_trial(broken).rules if rule.outcome == "failed"]
    assert failed == []


@pytest.mark.parametrize(
    "content",
    ["null", "[]", '{"meta": 3}', '{"meta": {"mode": "TRAIN", "mode_step": "x"}}', "\0"],
)
def test_an_index_of_something_else_is_left_out(content: str, tmp_path: Path) -> None:
    trial = write_trial(tmp_path / "trial", steps=2, is_small=True)
    sorted(trial.glob("index/*/*"))[0].write_text(content)
    tensors = read_smdebug_tensors(trial)
    assert tensors.statistics("layer.weight", kind="weight").steps.tolist() == [1]


def test_a_record_that_is_cut_anywhere_is_nothing() -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    record = encode_record("a", value, step=1, mode=1, mode_step=1, time=0.0)
    cut = [decode_record(record[:length]) for length in range(len(record))]
    assert all(one is None for one in cut)
    garbage = b"\xff" * 1_000_000
    assert decode_record(len(garbage).to_bytes(12, "little") + garbage + bytes(4)) is None


@pytest.mark.parametrize("size", [1, 7, 32_768, 32_769, 100_003])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int64", "bool"])
def test_blocks_come_to_what_numpy_has_for_the_whole(size: int, kind: str) -> None:
    value = (3 * np.random.default_rng(size).standard_normal(size) + 1).astype(kind)
    whole, found = value.astype(np.float64), tensor_statistics(value)
    expected = {
        "mean": whole.mean(),
        "std": whole.std(),
        "minimum": whole.min(),
        "maximum": whole.max(),
        "abs_mean": np.abs(whole).mean(),
        "zero_share": (whole == 0).mean(),
    }
    assert {*found} == {*STATISTICS}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_values_that_are_not_finite_are_counted_in_every_block() -> None:
    value = np.random.default_rng(0).standard_normal(100_000)
    value[[5, 40_000]], value[50_000], value[99_999] = np.inf, -np.inf, np.nan
    found, finite = tensor_statistics(value), value[np.isfinite(value)]
    assert (found["infinite_share"], found["nan_share"]) == (3e-5, 1e-5)
    assert found["mean"] == pytest.approx(finite.mean(), rel=1e-9)
    assert found["maximum"] == finite.max()


def test_a_sample_is_as_good_to_compare_with_as_the_value() -> None:
    before, now = (np.random.default_rng(seed).standard_normal((300, 400)) for seed in (0, 1))
    by_value = tensor_statistics(now, previous=before)
    assert tensor_statistics(now, previous=Sample.of(before)) == by_value
    assert np.isnan(tensor_statistics(now, previous=Sample.of(before.T))["update_ratio"])


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 6), (2, 3, 5, 7)])
def test_shares_of_channels_are_means(shape: tuple[int, ...]) -> None:
    output = np.maximum(np.random.default_rng(0).standard_normal(shape), 0)
    axes = tuple(axis for axis in range(output.ndim) if axis != 1)
    assert unit_shares(output).tolist() == (output != 0).mean(axis=axes).tolist()
    other_order = np.asfortranarray(output)
    assert unit_shares(other_order).tolist() == unit_shares(output).tolist()
