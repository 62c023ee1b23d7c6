"""Tables of a profile, and what they come to in money."""

from dataclasses import replace

import numpy as np
import pytest

from darkroom.debugging.profiling.advice import InstanceSize, cost_advice, instance_size, run_costs
from darkroom.debugging.profiling.summary import profile_summary
from profiled_runs import evaluations_of, run, samples_of_run, steps_of

PRICES = {
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.t3.medium": 0.05,
    "ml.g4dn.xlarge": 0.7364,
}


def saving(lines, start):
    return next((line for line in lines if line.advice.startswith(start)), None)


def advised(evidence, **changes):
    options = {"instance_type": "ml.m5.xlarge", "price_per_hour": 0.23, "alternatives": PRICES}
    return cost_advice(evidence, **{**options, **changes})


def test_the_phases_add_up_to_the_whole():
    summary = profile_summary(run(evaluations=evaluations_of()))
    assert sum(one.share for one in summary.phases) == pytest.approx(1)
    assert sum(one.seconds for one in summary.phases) == pytest.approx(summary.seconds)
    by_epoch = sum(sum(epoch.seconds.values()) for epoch in summary.epochs)
    assert by_epoch == pytest.approx(summary.seconds)
    assert [epoch.images for epoch in summary.epochs] == [1600] * 4
    assert {one.phase: one.seconds for one in summary.phases}["evaluation"] == 8


def test_resources_are_told_by_percentile():
    samples = replace(samples_of_run(count=101, gpus=(50,)), memory=np.arange(101.0))
    resources = {one.resource: one for one in profile_summary(run(system=samples)).resources}
    memory = resources["memory of the machine"]
    assert (memory.p50, memory.p90, memory.p99, memory.maximum) == (50, 90, 99, 100)
    assert {"GPU 0", "GPU 0 memory"} <= resources.keys()
    assert "CPU of data loading" not in resources


def test_without_samples_or_steps_a_summary_is_empty():
    summary = profile_summary(run(steps=steps_of(count=0)))
    assert (summary.seconds, summary.resources, summary.epochs) == (0, (), ())


def test_a_run_costs_its_time_at_the_instances_price():
    evidence = run(system=samples_of_run(), evaluations=evaluations_of())
    first, *idle = run_costs(evidence, instance_type="ml.m5.xlarge", price_per_hour=3600)
    summary = profile_summary(evidence)
    assert first.dollars == pytest.approx(first.seconds)
    assert first.seconds == pytest.approx(summary.seconds + 3)  # until the first step
    assert not first.estimated
    assert [line.advice for line in idle] == [
        "the CPU idled",
        "the training waited for images",
    ]
    assert idle[0].dollars == pytest.approx(0.1 * first.seconds, rel=0.1)


def test_idle_gpus_are_counted():
    lines = run_costs(run(system=samples_of_run(gpus=(25,))), instance_type="ml.g4dn.xlarge")
    gpu = next(line for line in lines if line.advice == "the GPU idled")
    assert gpu.seconds == pytest.approx(0.75 * lines[0].seconds, rel=0.02)
    assert gpu.dollars is None


def test_a_local_run_is_priced_on_types_that_could_run_it():
    lines = run_costs(run(system=samples_of_run(cores=4, cpu=85)), alternatives=PRICES)
    costs = [line for line in lines if line.kind == "run"]
    assert [line.advice.split()[3] for line in costs] == ["ml.m5.large", "ml.m5.xlarge"]
    large, xlarge = costs
    assert large.seconds == pytest.approx(1.7 * xlarge.seconds, rel=0.02)  # 3.4 cores were busy
    assert all(line.estimated and "assumes" in line.basis for line in costs)


def test_a_training_too_large_for_an_instance_is_not_priced_there():
    lines = run_costs(run(system=samples_of_run(memory=7 * 2**30)), alternatives=PRICES)
    assert [line.advice for line in lines if line.kind == "run"] == [
        "this run on ml.m5.xlarge would cost"
    ]


def test_slow_loading_is_worth_a_thread_of_its_own_where_cores_are_free():
    slow = steps_of(slower_loading=10)
    busy, idle = (
        advised(run(steps=slow, system=samples_of_run(cpu=cpu)), instance_type=None)
        for cpu in (100, 50)
    )
    assert saving(busy, "load") is None
    line = saving(idle, "load")
    waited = slow.seconds["data_wait"].sum()
    assert line.seconds == pytest.approx(0.5 * waited, rel=0.05)


def test_larger_batches_save_half_of_the_optimisers_time():
    steps = steps_of()
    optimiser = 4 * steps.seconds["optimiser"]
    steps = replace(steps, seconds={**steps.seconds, "optimiser": optimiser})
    line = saving(advised(run(steps=steps), instance_type=None), "double")
    assert line.advice == "double training.batch_size from 32 to 64"
    assert line.seconds == pytest.approx(optimiser.sum() / 2)
    assert line.estimated


def test_threads_are_advised_where_cores_idle():
    lines = advised(run(system=samples_of_run(cores=4, cpu=25)), instance_type=None)
    assert "training.threads: 4" in saving(lines, "compute").advice


def test_threads_are_not_advised_where_others_have_the_cores():
    samples = samples_of_run(cores=4, cpu=97)
    shared = replace(samples, process_cpu=np.full(120, 100.0))
    assert saving(advised(run(system=shared)), "compute") is None
    assert saving(advised(run(system=shared)), "train on") is None


def test_threads_are_not_advised_for_small_images():
    evidence = run(system=samples_of_run(cores=4, cpu=25), hyperparameters={"image_size": 32})
    assert saving(advised(evidence, instance_type=None), "compute") is None


def test_a_cheaper_instance_is_advised_where_cores_idle():
    evidence = run(system=samples_of_run(cores=4, cpu=40), hyperparameters={"image_size": 32})
    line = saving(advised(evidence), "train on")
    assert line.advice == "train on ml.m5.large instead of ml.m5.xlarge"
    first = run_costs(evidence, instance_type="ml.m5.xlarge", price_per_hour=0.23)[0]
    assert line.dollars == pytest.approx(first.dollars / 2)


def test_no_cheaper_instance_is_advised_where_every_core_is_needed():
    evidence = run(system=samples_of_run(cores=4, cpu=98))
    assert advised(evidence) == []


def test_a_run_without_steps_has_no_costs():
    empty = run(steps=steps_of(count=0), system=samples_of_run())
    assert advised(empty) == run_costs(empty) == []


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ml.m5.large", InstanceSize(2, 8)),
        ("ml.c5.xlarge", InstanceSize(4, 8)),
        ("ml.m7i.4xlarge", InstanceSize(16, 64)),
        ("ml.r6id.12xlarge", InstanceSize(48, 384)),
        ("ml.g4dn.xlarge", None),
        ("ml.t3.medium", None),
        ("m5.large", None),
    ],
)
def test_the_size_of_an_instance_follows_from_its_name(name, size):
    assert instance_size(name) == size
