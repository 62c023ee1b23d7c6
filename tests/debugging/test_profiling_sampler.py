"""Samples of the machine: really taken, and read back however the training ended."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from darkroom.debugging.profiling.sampler import (
    ContainerMemory,
    CpuMeter,
    DiskMeter,
    GpuMeter,
    MemoryMeter,
    NetworkMeter,
    ProcessMeter,
    SystemSampler,
    take_sample,
)
from darkroom.telemetry.system import SystemSamples, read_samples


def sampled(path: Path, *, samples: int, **options) -> SystemSamples:
    """Of work that goes on until so many were added."""
    with SystemSampler(path, interval_ms=100, **options):
        work_for(samples, path=path)
    return read_samples(path)


def work_for(samples: int, *, path: Path) -> None:
    """Work until so many samples were added."""
    wanted = len(read_samples(path)) + samples
    while len(read_samples(path)) < wanted:
        sum(range(1000))


def test_a_real_run_is_sampled(tmp_path):
    before, worked = time.time(), time.process_time()
    samples = sampled(tmp_path / "system.jsonl", samples=5)
    share = 100 * (time.process_time() - worked) / (time.time() - before)  # little beside others
    assert 5 <= len(samples) <= 7
    assert (np.diff(samples.time) >= 0.045).all()
    assert samples.cpu.shape == (len(samples), len(os.sched_getaffinity(0)))
    assert before < samples.time[0] < samples.time[-1] <= time.time() + 0.1
    assert (np.diff(samples.time) > 0).all()
    assert share / 3 < samples.process_cpu.mean() < 100 * os.cpu_count() + 30
    assert 1e7 < samples.process_memory[-1] < psutil.virtual_memory().total
    assert ((samples.cpu >= 0) & (samples.cpu <= 100)).all()
    assert ((samples.memory > 0) & (samples.memory < 100)).all()
    assert np.isnan(samples.loader_cpu).all()
    assert (samples.loaders == 0).all()


def test_memory_that_is_taken_shows(tmp_path):
    path = tmp_path / "system.jsonl"
    with SystemSampler(path, interval_ms=100):
        work_for(1, path=path)
        taken = np.ones(20_000_000)
        work_for(2, path=path)  # the first may have been under way
    memory = read_samples(path).process_memory
    assert memory[-1] - memory[0] > 0.9 * taken.nbytes


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path):
    path = tmp_path / "system.jsonl"
    first = sampled(path, samples=2)
    path.write_bytes(path.read_bytes() + b'{"time": 17, "cpu": [1')  # killed while writing
    both = sampled(path, samples=1)
    assert len(both) > len(first) >= 1
    assert both.time[: len(first)].tolist() == first.time.tolist()


def test_a_meter_that_fails_is_missing_and_nothing_more(tmp_path):
    class Broken:
        def read(self):
            raise RuntimeError("no such file in /proc")

    def impossible():
        raise OSError("no driver")

    samples = sampled(
        tmp_path / "system.jsonl", samples=1, meters=(Broken, impossible, MemoryMeter)
    )
    assert len(samples) >= 1
    assert np.isfinite(samples.memory).all()
    assert np.isnan(samples.process_memory).all()
    assert samples.gpu.shape == (len(samples), 0)


def test_a_file_that_cannot_be_written_hurts_nothing(tmp_path):
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "system.jsonl"
    with SystemSampler(path, interval_ms=100):
        time.sleep(0.15)
    assert len(read_samples(path)) == 0


def test_an_error_of_the_training_ends_the_sampler(tmp_path):
    sampler = SystemSampler(tmp_path / "system.jsonl", interval_ms=60_000)
    with pytest.raises(ValueError, match="diverged"), sampler:
        raise ValueError("diverged")
    assert not sampler._thread.is_alive()


def test_without_a_file_there_are_no_samples(tmp_path):
    samples = read_samples(tmp_path / "missing.jsonl")
    assert len(samples) == 0
    assert samples.cpu.shape == samples.gpu.shape == (0, 0)


def test_lines_that_are_no_samples_are_left_out(tmp_path):
    path = tmp_path / "system.jsonl"
    lines = [
        json.dumps({"time": 2, "cpu": [10, 20], "memory": 5}),
        '["time"]',
        '{"time": "late"}',
        "\x00\x00\x00",
        json.dumps({"time": 1, "cpu": [30], "memory": "much", "gpu": [float("nan")]}),
        '{"time": 3, "cp',
    ]
    path.write_text("\n".join(lines))
    samples = read_samples(path)
    assert samples.time.tolist() == [1, 2]
    np.testing.assert_equal(samples.cpu, [[30, np.nan], [10, 20]])
    np.testing.assert_equal(samples.memory, [np.nan, 5])
    assert np.isnan(samples.gpu).all()


def test_a_sample_costs_less_than_five_milliseconds_of_cpu():
    meters = [CpuMeter(), MemoryMeter(), ProcessMeter(), DiskMeter(), NetworkMeter()]
    take_sample(meters)
    started = time.thread_time()
    for _ in range(50):
        take_sample(meters)
    assert (time.thread_time() - started) / 50 < 5e-3


def test_data_loading_workers_are_told_apart():
    program = (
        "import multiprocessing as m, subprocess, sys, time\n"
        "from darkroom.debugging.profiling.sampler import ProcessMeter\n"
        "worker = m.get_context('fork').Process(target=time.sleep, args=(30,))\n"
        "worker.start()\n"
        "other = subprocess.Popen(['sleep', '30'])\n"
        "meter = ProcessMeter()\n"
        "meter.read(); time.sleep(0.1)\n"
        "print(sorted(meter.read().items()))\n"
        "worker.kill(); worker.join(); other.kill(); other.wait()\n"
        "print(meter.read()['loaders'])\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = answer.stdout.splitlines()
    assert "('loaders', 1.0)" in first
    assert "('loader_cpu', 0.0)" in first
    assert second == "0.0"


def container(root: Path, *, membership: str, files: dict[str, str]) -> ContainerMemory | None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "membership").write_text(membership)
    return ContainerMemory.of_this_process(below=1000, groups=root, membership=root / "membership")


def test_the_limit_of_a_container_is_kept_to_in_cgroup_v2(tmp_path):
    found = container(
        tmp_path,
        membership="0::/\n",
        files={
            "memory.max": "400\n",
            "memory.current": "300\n",
            "memory.stat": "anon 100\ninactive_file 100\n",
        },
    )
    assert found.percent() == 50


def test_the_limit_of_a_container_is_kept_to_in_cgroup_v1(tmp_path):
    found = container(
        tmp_path,
        membership="5:cpu:/x\n4:memory:/docker/17\n0::/\n",  # the path outside
        files={
            "memory/memory.limit_in_bytes": "500\n",
            "memory/memory.usage_in_bytes": "200\n",
            "memory/memory.stat": "cache 1\ntotal_inactive_file 100\n",
        },
    )
    assert found.percent() == 20


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "1000", ""])
def test_without_a_limit_there_is_no_container(tmp_path, limit):
    assert container(tmp_path, membership="0::/a\n", files={"a/memory.max": limit}) is None


def test_the_limit_around_a_group_counts_where_it_has_none(tmp_path):
    found = container(
        tmp_path,
        membership="0::/job/step\n",
        files={
            "job/step/memory.max": "max",
            "job/memory.max": "800",
            "job/memory.current": "400",
            "job/memory.stat": "",
        },
    )
    assert found.percent() == 50


class FakeNvml:
    """Two GPUs, the second of which does not tell how busy it is."""

    def __init__(self):
        self.asked = []

    def nvmlInit(self):  # noqa: N802
        return None

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        return {"GPU-b": 1}[name]

    def nvmlDeviceGetUtilizationRates(self, device):  # noqa: N802
        if device == 1:
            raise RuntimeError("not supported")
        return type("Rates", (), {"gpu": 70})

    def nvmlDeviceGetMemoryInfo(self, device):  # noqa: N802
        return type("Memory", (), {"used": 25, "total": 100})


@pytest.mark.parametrize(
    ("visible", "busy"),
    [
        (None, [70, np.nan]),
        ("", []),
        ("-1", []),
        ("1", [np.nan]),
        ("1,0", [np.nan, 70]),
        ("GPU-b", [np.nan]),
        ("0,-1,1", [70]),
    ],
)
def test_the_gpus_that_the_process_may_see_are_measured(monkeypatch, visible, busy):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    reading = GpuMeter().read()
    np.testing.assert_equal(reading["gpu"], busy)
    assert reading["gpu_memory"] == [25] * len(busy)


def test_only_operators_import_torch():
    program = (
        "import sys\n"
        "import darkroom.debugging.profiling.advice, darkroom.telemetry.operators\n"
        "import darkroom.debugging.profiling.sampler, darkroom.debugging.profiling.summary\n"
        "import darkroom.debugging.rules.catalogue\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
