"""Timing operators: a real, tiny profile, and tables derived from traces."""

import gzip
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from darkroom.debugging.profiling.operators import OperatorProfiler, recorded_steps
from darkroom.telemetry.operators import TABLE_FILE, TRACE_FILE, operator_table, read_operators


def train_steps(profiler: OperatorProfiler, *, count: int) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(count):
        profiler.start()
        loss = model(torch.ones(4, 8)).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        profiler.step()
    profiler.stop()


def trace_names(folder):
    with gzip.open(folder / TRACE_FILE, "rt") as file:
        return [event.get("name") for event in json.load(file)["traceEvents"]]


def test_a_real_profile_names_the_operators(tmp_path, capfd):
    profiler = OperatorProfiler(tmp_path, steps=5)
    train_steps(profiler, count=20)
    assert profiler.problem == ""
    table = read_operators(tmp_path)
    by_name = {one.name: one for one in table.operators}
    assert (table.steps, table.on_device) == (5, False)
    assert by_name["aten::addmm"].calls == 2 * 5
    assert by_name["aten::linear"].total_cpu_ms > by_name["aten::linear"].self_cpu_ms
    assert sum(one.share for one in table.operators) == pytest.approx(1, abs=0.05)
    times = [one.self_cpu_ms for one in table.operators]
    assert times == sorted(times, reverse=True)
    assert table == read_operators(tmp_path)
    assert (tmp_path / TABLE_FILE).exists()
    assert {f"step {number}" for number in range(5, 10)} <= set(trace_names(tmp_path))
    assert capfd.readouterr().err == ""


def test_a_training_that_ends_within_the_window_leaves_what_was_recorded(tmp_path):
    train_steps(OperatorProfiler(tmp_path, steps=50), count=7)
    assert read_operators(tmp_path).steps == 2


def test_a_training_that_ends_within_the_warm_up_leaves_nothing(tmp_path):
    train_steps(OperatorProfiler(tmp_path, steps=50), count=3)
    assert read_operators(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_no_steps_no_profile(tmp_path):
    train_steps(OperatorProfiler(tmp_path, steps=0), count=20)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_training_keeps_the_trace_of_the_first_start(tmp_path):
    train_steps(OperatorProfiler(tmp_path, steps=2), count=3)
    before = (tmp_path / TRACE_FILE).read_bytes()
    train_steps(OperatorProfiler(tmp_path, steps=2), count=3)
    assert (tmp_path / TRACE_FILE).read_bytes() == before


def test_stopping_twice_is_stopping_once(tmp_path):
    profiler = OperatorProfiler(tmp_path, steps=2)
    train_steps(profiler, count=3)
    profiler.stop()
    profiler.step()
    assert profiler.problem == ""


def test_a_profile_that_cannot_be_written_hurts_nothing(tmp_path):
    (tmp_path / "file").write_text("no folder")
    profiler = OperatorProfiler(tmp_path / "file", steps=2)
    train_steps(profiler, count=3)
    assert "Error" in profiler.problem


def test_another_profiler_at_work_hurts_nothing(tmp_path):
    profiler = OperatorProfiler(tmp_path, steps=2)
    with torch.autograd.profiler.profile():
        train_steps(profiler, count=3)
    train_steps(OperatorProfiler(tmp_path / "next", steps=2), count=3)
    assert read_operators(tmp_path / "next").steps == 2


@given(st.integers(1, 1000))
def test_as_many_steps_are_recorded_as_configured(count):
    steps = recorded_steps(count)
    assert len(steps) == count
    assert steps.start == (5 if count >= 5 else 0)


def event(name, *, ts, dur, tid=1, cat="cpu_op", **args):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def write_trace(folder, events):
    with gzip.open(folder / TRACE_FILE, "wt") as file:
        json.dump({"traceEvents": events}, file)
    return folder / TRACE_FILE


def test_own_time_is_without_what_was_called(tmp_path):
    trace = write_trace(
        tmp_path,
        [
            event("conv", ts=0, dur=100),
            event("kernel", ts=10, dur=60),
            event("kernel", ts=20, dur=30),  # calls itself
            event("conv", ts=5, dur=10, tid=2),
            event("add", ts=100, dur=20),
            {"ph": "M", "name": "process_name"},
            event("step 3", ts=0, dur=130, cat="user_annotation"),
        ],
    )
    table = operator_table(trace)
    told = {
        one.name: (one.calls, 1e3 * one.self_cpu_ms, 1e3 * one.total_cpu_ms)
        for one in table.operators
    }
    assert told == {"kernel": (2, 60, 60), "conv": (2, 50, 110), "add": (1, 20, 20)}
    assert table.steps == 1
    assert [one.name for one in table.operators] == ["kernel", "conv", "add"]


def test_a_gpus_kernels_count_to_the_operator_that_launched_them(tmp_path):
    trace = write_trace(
        tmp_path,
        [
            event("aten::conv2d", ts=0, dur=9, **{"External id": 1}),
            event("aten::cudnn_convolution", ts=1, dur=7, **{"External id": 2}),
            event("sm90_gemm", ts=50, dur=400, cat="kernel", **{"External id": 2}),
            event("Memcpy HtoD", ts=500, dur=100, cat="gpu_memcpy"),
        ],
    )
    table = operator_table(trace)
    assert table.on_device
    assert [(one.name, one.self_device_ms, one.share) for one in table.operators[:2]] == [
        ("aten::cudnn_convolution", 0.4, 0.8),
        ("Memcpy HtoD", 0.1, 0.2),
    ]
    assert table.operators[0].seconds == pytest.approx(4e-4)


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b'{"traceEvents": [{', mtime=0), b"\x1f"]
)
def test_a_damaged_trace_is_no_table(tmp_path, content):
    (tmp_path / TRACE_FILE).write_bytes(content)
    assert read_operators(tmp_path) is None


def test_a_trace_that_was_cut_off_is_no_table(tmp_path):
    trace = write_trace(tmp_path, [event("add", ts=i, dur=1) for i in range(1000)])
    trace.write_bytes(trace.read_bytes()[:-100])
    assert read_operators(tmp_path) is None


def test_a_damaged_table_is_derived_anew(tmp_path):
    write_trace(tmp_path, [event("add", ts=0, dur=1)])
    (tmp_path / TABLE_FILE).write_text('{"steps"')
    assert read_operators(tmp_path).operators[0].name == "add"
