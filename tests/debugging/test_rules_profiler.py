"""Rules over steps and samples: each fires on what it is for, and on nothing healthy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.debugging.rules.catalogue import PROFILER_RULES
from darkroom.debugging.rules.machine import memory_growth, theil_sen_slope
from darkroom.debugging.rules.rule import NotApplicableError
from darkroom.debugging.rules.steps import (
    checkpoint_share,
    data_wait,
    evaluation_share,
    max_initialization_time,
    small_batches,
    step_outlier,
)
from profiled_runs import START, evaluations_of, run, samples_of_run, steps_of

RULES = {rule.name: rule for rule in PROFILER_RULES}
SAGEMAKER = {
    "batch_size": {
        "cpu_threshold_p95": 70.0,
        "gpu_threshold_p95": 70.0,
        "gpu_memory_threshold_p95": 70.0,
        "patience": 100,
        "window": 500,
    },
    "cpu_bottleneck": {
        "threshold": 50.0,
        "gpu_threshold": 10.0,
        "cpu_threshold": 90.0,
        "patience": 100,
    },
    "io_bottleneck": {
        "threshold": 50.0,
        "gpu_threshold": 70.0,
        "io_threshold": 50.0,
        "patience": 1000,
    },
    "gpu_memory_increase": {"increase": 10.0, "patience": 100, "window": 500},
    "low_gpu_utilization": {
        "threshold_p95": 70.0,
        "threshold_p5": 10.0,
        "patience": 1000,
        "window": 500,
    },
    "load_balancing": {"threshold": 0.5, "patience": 10},
    "max_initialization_time": {"threshold": 20.0},
    "step_outlier": {"stddev": 5.0, "mode": None, "n_outliers": 10},
    "dataloader": {"min_threshold": 70.0, "max_threshold": 200.0},
    "overall_system_usage": {},
    "overall_framework_metrics": {},
}


def healthy_memory(count, *, seed):
    """As measured: a steep first epoch, then a few percent more, and a peak at its end."""
    random = np.random.default_rng(seed)
    time = np.linspace(0, 1, count)
    level = 1.0e9 + 4e8 * (1 - np.exp(-time * random.uniform(12, 40)))
    steps = 3e7 * (time > random.uniform(0.3, 0.9)) + 2e7 * random.uniform() * time
    peaks = 1.5e8 * (random.uniform(size=count) > 0.97)
    return level + steps + peaks


def leaking_memory(count, *, interval, megabytes_a_second, seed=0):
    return healthy_memory(count, seed=seed) + 1e6 * megabytes_a_second * interval * np.arange(count)


def hits_of(rule, evidence):
    try:
        return rule.evaluate(evidence)
    except NotApplicableError:
        return []


@pytest.mark.parametrize("name", SAGEMAKER)
def test_sagemakers_rules_have_their_documented_parameters(name):
    assert dict(RULES[name].parameters) == SAGEMAKER[name]


@pytest.mark.parametrize("rule", PROFILER_RULES, ids=lambda rule: rule.name)
def test_without_data_a_rule_is_not_applicable(rule):
    with pytest.raises(NotApplicableError):
        rule.evaluate(run(steps=steps_of(count=0), started=0.0))


@pytest.mark.parametrize("rule", PROFILER_RULES, ids=lambda rule: rule.name)
def test_no_rule_warns_of_a_healthy_training_on_a_cpu(rule):
    for seed in range(50):
        seconds = 10 + seed
        evidence = run(
            steps=steps_of(count=5 * seconds, per_epoch=2 * seconds, seed=seed, noise=0.3),
            system=samples_of_run(
                count=2 * seconds, memory=healthy_memory(2 * seconds, seed=seed), seed=seed
            ),
            evaluations=evaluations_of(evaluation=seconds / 20),
        )
        assert hits_of(rule, evidence) == []


@pytest.mark.parametrize("rule", PROFILER_RULES, ids=lambda rule: rule.name)
def test_no_rule_warns_of_a_healthy_training_on_gpus(rule):
    evidence = run(
        steps=steps_of(count=2000, per_epoch=500),
        system=samples_of_run(count=1500, gpus=(93, 95), cpu=50),
        evaluations=evaluations_of(evaluation=20),
    )
    assert hits_of(rule, evidence) == []


@pytest.mark.parametrize("rule", PROFILER_RULES, ids=lambda rule: rule.name)
def test_a_rule_says_what_it_means_and_what_to_try(rule):
    if not rule.name.startswith("overall"):
        assert rule.meaning.endswith(".")
        assert rule.advice(None, run())
    assert len(rule.title) <= 80


def test_loading_that_is_ten_times_slower_is_found():
    (hit,) = data_wait(run(steps=steps_of(slower_loading=10)))
    assert hit.figures["waiting_percent"] > 35
    assert hit.plot is not None


def test_a_short_training_with_slow_loading_is_found_too():
    assert data_wait(run(steps=steps_of(count=30, per_epoch=10, slower_loading=10)))


def test_one_stall_is_no_slow_loading():
    steps = steps_of()
    waits = steps.seconds["data_wait"].copy()
    waits[100] = 60
    stalled = replace(steps, seconds={**steps.seconds, "data_wait": waits})
    assert data_wait(run(steps=stalled)) == []


def test_waits_of_a_millisecond_are_no_matter():
    assert data_wait(run(steps=steps_of(seconds=0.002, slower_loading=10))) == []


def test_batches_of_one_are_found():
    (hit,) = small_batches(run(steps=steps_of(images=1), steps_per_epoch=1500))
    assert hit.figures["images_a_step"] == 1


def test_small_batches_of_a_small_data_set_are_no_matter():
    assert small_batches(run(steps=steps_of(images=2), steps_per_epoch=6)) == []


def test_usual_batches_are_no_matter():
    assert small_batches(run(steps=steps_of(images=8), steps_per_epoch=900)) == []


def test_a_late_first_step_is_found():
    (hit,) = max_initialization_time(run(started=START - 30 * 60))
    assert hit.figures["minutes"] == pytest.approx(30, abs=0.1)


def test_steps_far_beyond_the_others_are_found_if_there_are_more_than_ten():
    def with_slow(count):
        steps = steps_of(count=2000)
        forward = steps.seconds["forward"].copy()
        forward[100 : 100 + count] *= 60
        return run(steps=replace(steps, seconds={**steps.seconds, "forward": forward}))

    assert step_outlier(with_slow(10)) == []
    (hit,) = step_outlier(with_slow(11))
    assert (hit.step, hit.figures["slow_steps"]) == (100, 11)


def test_outliers_need_more_than_a_hundred_steps():
    with pytest.raises(NotApplicableError, match="100 steps"):
        step_outlier(run(steps=steps_of(count=100)))


def test_what_recording_costs_is_no_outlier():
    steps = steps_of(count=2000)
    recording = steps.seconds["recording"].copy()
    recording[::100] += 5
    slow = replace(steps, seconds={**steps.seconds, "recording": recording})
    assert step_outlier(run(steps=slow)) == []


@pytest.mark.parametrize(("seconds", "rate"), [(12, 20.0), (30, 8.0), (60, 4.0), (600, 0.5)])
def test_a_leak_is_found(seconds, rate):
    memory = leaking_memory(2 * seconds, interval=0.5, megabytes_a_second=rate)
    steps = steps_of(count=5 * seconds, per_epoch=5 * seconds // 4)
    (hit,) = memory_growth(
        run(system=samples_of_run(count=2 * seconds, memory=memory), steps=steps)
    )
    assert hit.figures["megabytes_a_minute"] == pytest.approx(60 * rate, rel=0.3)


def test_a_leak_of_evaluations_alone_is_found():
    epoch = np.repeat(np.arange(8), 20)
    memory = 1e9 + 1e8 * epoch
    assert memory_growth(run(system=samples_of_run(count=len(memory), memory=memory)))


@pytest.mark.parametrize("at", [0.3, 0.5, 0.7, 0.9])
def test_memory_that_is_taken_once_is_no_leak(at):
    memory = np.where(np.linspace(0, 1, 120) < at, 1e9, 1.8e9)
    assert memory_growth(run(system=samples_of_run(memory=memory))) == []


def test_memory_that_levels_off_is_no_leak():
    memory = 1e9 + 1e9 * (1 - np.exp(-np.linspace(0, 8, 120)))
    assert memory_growth(run(system=samples_of_run(memory=memory))) == []


def test_the_first_epoch_is_no_leak_however_long():
    memory = np.concatenate([np.linspace(1e9, 3e9, 90), np.full(40, 3e9)])
    steps = steps_of(count=260, per_epoch=215)
    assert memory_growth(run(system=samples_of_run(count=130, memory=memory), steps=steps)) == []


def test_memory_that_grows_in_the_only_epoch_tells_nothing():
    memory = np.linspace(1e9, 3e9, 120)
    one_epoch = steps_of(count=240, per_epoch=240)
    with pytest.raises(NotApplicableError, match="every first epoch"):
        memory_growth(run(system=samples_of_run(memory=memory), steps=one_epoch))


def test_few_samples_tell_nothing_of_memory():
    with pytest.raises(NotApplicableError, match="samples after the warm-up"):
        memory_growth(run(system=samples_of_run(count=15)))


@given(
    slope=st.floats(-100, 100),
    outliers=st.lists(st.floats(-1e6, 1e6), max_size=8),
    seed=st.integers(0, 100),
)
@settings(max_examples=50, deadline=None)
def test_a_fifth_of_outliers_hardly_moves_the_slope(slope, outliers, seed):
    random = np.random.default_rng(seed)
    x = np.arange(40.0)
    y = slope * x + random.normal(scale=0.1, size=40)
    y[random.choice(40, size=len(outliers), replace=False)] = outliers
    assert theil_sen_slope(x, y) == pytest.approx(slope, abs=0.5 if not outliers else 60)
    assert theil_sen_slope(x, slope * x) == pytest.approx(slope)


def test_long_evaluations_and_checkpoints_are_noted():
    long = run(evaluations=evaluations_of(evaluation=20, checkpoint=8))
    assert evaluation_share(long)[0].figures["evaluation_percent"] > 60
    assert checkpoint_share(long)[0].figures["checkpoint_percent"] > 40
    assert RULES["evaluation_share"].severity == "note"
