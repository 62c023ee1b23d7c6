"""Rules over samples of GPUs: SageMaker's conditions, with their documented defaults."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.debugging.rules.machine import (
    batch_size,
    cpu_bottleneck,
    dataloader,
    gpu_memory_increase,
    io_bottleneck,
    jensen_shannon_distance,
    load_balancing,
    low_gpu_utilization,
)
from darkroom.debugging.rules.rule import NotApplicableError
from darkroom.telemetry.system import SystemSamples
from profiled_runs import run, samples_of_run


def gpu_run(samples: SystemSamples):
    return run(system=samples)


def test_a_machine_with_room_for_larger_batches_is_found_gpu_by_gpu():
    hits = batch_size(gpu_run(samples_of_run(count=150, gpus=(30, 90), cpu=20)))
    assert [hit.where for hit in hits] == ["GPU 0"]


def test_a_full_gpu_memory_leaves_no_room_for_larger_batches():
    samples = samples_of_run(count=150, gpus=(30,), cpu=20)
    assert batch_size(gpu_run(replace(samples, gpu_memory=samples.gpu_memory + 50))) == []


def test_only_the_window_counts():
    samples = samples_of_run(count=700, gpus=(30,), cpu=20)
    gpu = samples.gpu.copy()
    gpu[:200] = 100
    assert batch_size(gpu_run(replace(samples, gpu=gpu)))
    assert batch_size(gpu_run(replace(samples, gpu=gpu)), window=700) == []


@pytest.mark.parametrize(("idle", "found"), [(49, False), (51, True)])
def test_a_gpu_that_waits_for_the_cpu_half_of_the_time_is_found(idle, found):
    samples = samples_of_run(count=100, gpus=(95,), cpu=50)
    cpu, gpu = samples.cpu.copy(), samples.gpu.copy()
    cpu[:idle, 0], gpu[:idle] = 99, 2
    assert bool(cpu_bottleneck(gpu_run(replace(samples, cpu=cpu, gpu=gpu)))) is found


def test_a_gpu_that_waits_for_the_disk_is_found():
    samples = samples_of_run(count=1000, gpus=(50,))
    waiting = replace(samples, io_wait=np.full(1000, 60.0))
    assert io_bottleneck(gpu_run(samples)) == []
    assert io_bottleneck(gpu_run(waiting))[0].figures["samples_percent"] == 100


@pytest.mark.parametrize(("workers", "found"), [(1, True), (2, False), (4, False), (5, True)])
def test_loading_processes_are_counted_against_the_cores(workers, found):
    samples = replace(samples_of_run(), loaders=np.full(120, float(workers)))
    assert bool(dataloader(gpu_run(samples))) is found


def test_gpu_memory_that_rises_by_more_than_ten_points_is_found():
    samples = samples_of_run(count=400, gpus=(90, 90))
    memory = samples.gpu_memory.copy()
    memory[:, 1] = np.linspace(20, 80, 400)
    (hit,) = gpu_memory_increase(gpu_run(replace(samples, gpu_memory=memory)))
    assert hit.where == "GPU 1"
    assert hit.figures["increase_points"] == pytest.approx(22.6, abs=0.5)


def test_gpu_memory_that_is_taken_at_the_start_is_no_matter():
    samples = samples_of_run(count=400, gpus=(90,))
    memory = np.minimum(np.arange(400.0), 60)[:, None]
    assert gpu_memory_increase(gpu_run(replace(samples, gpu_memory=memory))) == []


def test_a_gpu_that_is_hardly_used_is_found():
    (hit,) = low_gpu_utilization(gpu_run(samples_of_run(count=1000, gpus=(30, 95))))
    assert (hit.where, hit.figures["use"]) == ("GPU 0", "low")


def test_a_gpu_that_goes_from_idle_to_busy_is_found():
    samples = samples_of_run(count=1000, gpus=(95,))
    gpu = samples.gpu.copy()
    gpu[::4] = 0
    (hit,) = low_gpu_utilization(gpu_run(replace(samples, gpu=gpu)))
    assert hit.figures["use"] == "fluctuates"


def test_gpus_with_uneven_work_are_found():
    (hit,) = load_balancing(gpu_run(samples_of_run(gpus=(95, 40))))
    assert hit.where == "GPU 0 and GPU 1"
    assert 0.5 < hit.figures["distance"] <= np.sqrt(np.log(2)) + 1e-9


def test_gpus_that_are_both_full_are_alike():
    samples = samples_of_run(gpus=(90, 90))
    assert load_balancing(gpu_run(replace(samples, gpu=np.full((120, 2), 100.0)))) == []


def test_a_gpu_that_does_not_tell_its_use_is_not_judged():
    samples = samples_of_run(gpus=(90, 90))
    with pytest.raises(NotApplicableError):
        load_balancing(gpu_run(replace(samples, gpu=np.full((120, 2), np.nan))))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=20))
def test_the_distance_is_symmetric_and_bounded(pairs):
    p, q = np.array(pairs, dtype=float).T
    p[0] += 1
    q[0] += 1
    distance = jensen_shannon_distance(p, q)
    assert distance == pytest.approx(jensen_shannon_distance(q, p))
    assert 0 <= distance <= np.sqrt(np.log(2)) + 1e-9
    assert jensen_shannon_distance(p, 3 * p) == pytest.approx(0, abs=1e-7)
