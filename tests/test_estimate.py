"""What a run would take and cost: ranges that follow the configuration."""

import pytest
import torchvision

from darkroom.backends.sagemaker import throughput
from darkroom.backends.sagemaker.estimate import (
    STARTUP_SECONDS,
    Estimate,
    JobEstimate,
    estimate_run,
)
from darkroom.backends.sagemaker.estimate_lines import estimate_lines
from darkroom.backends.sagemaker.throughput import Workload, training_speed
from darkroom.config import Config
from darkroom.config.architectures import ARCHITECTURES


def estimated(*, images: int | None = 10_000, region: str = "us-east-1", **sections) -> Estimate:
    return estimate_run(Config.model_validate(sections), images=images, region=region)


def job(estimate: Estimate, what: str) -> JobEstimate:
    (found,) = [job for job in estimate.jobs if job.what.startswith(what)]
    return found


def test_torchvision_says_the_same_of_the_cost_of_each_architecture() -> None:
    published = {
        name: next(iter(torchvision.models.get_model_weights(name))).meta["_ops"]
        for name in ARCHITECTURES
    }
    known = {name: operations for name, (operations, _) in throughput._OPERATIONS.items()}
    assert known == pytest.approx(published, rel=1e-4)


def test_the_measured_speed_lies_within_the_range_for_a_machine_of_that_size() -> None:
    speed = training_speed(Workload("resnet18", 128), instance_type="ml.m5.large")
    assert speed
    assert speed.low < 42 < speed.high


def test_larger_networks_and_larger_images_are_slower() -> None:
    def low(architecture: str, size: int) -> float:
        speed = training_speed(Workload(architecture, size), instance_type="ml.g5.xlarge")
        assert speed
        return speed.low

    assert low("resnet18", 224) > low("resnet50", 224) > low("resnet152", 224)
    assert low("resnet18", 112) == pytest.approx(4 * low("resnet18", 224))


def test_more_cores_and_more_processes_on_gpus_are_faster() -> None:
    work = Workload("resnet18", 224)
    small, large = (
        training_speed(work, instance_type=f"ml.m5.{size}") for size in ("xlarge", "4xlarge")
    )
    assert small
    assert large
    assert large.low == 4 * small.low
    one, four = (training_speed(work, instance_type="ml.g5.12xlarge", processes=n) for n in (1, 4))
    assert one
    assert four
    assert four.low == 4 * one.low


def test_each_sort_of_job_is_estimated() -> None:
    estimate = estimated(batch={"split": "test"})
    assert [(j.kind, j.jobs) for j in estimate.jobs] == [
        ("training", 1),
        ("training", 4),
        ("training", 1),
        ("hosting", 1),
        ("transform", 1),
    ]
    assert estimate.cost.high > estimate.cost.low > 0


def test_a_grid_is_as_many_jobs_as_it_has_combinations() -> None:
    space = {"learning_rate": None, "weight_decay": None, "epochs": {"low": 3, "high": 7}}
    searched = job(estimated(tuning={"strategy": "grid", "search_space": space}), "tuning")
    assert searched.jobs == 3 * 5


def test_what_is_switched_off_costs_nothing() -> None:
    estimate = estimated(tuning={"enabled": False}, deployment={"enabled": False})
    assert [j.what.split(",")[0] for j in estimate.jobs] == ["orchestration", "training"]


def test_the_orchestration_job_lasts_as_long_as_everything_in_it() -> None:
    estimate = estimated()
    inside = sum(j.seconds.high for j in estimate.jobs[1:] if j.seconds)
    orchestration = estimate.jobs[0].seconds
    assert orchestration
    assert estimate.seconds == orchestration
    assert orchestration.high > inside + STARTUP_SECONDS["training"].high


def test_jobs_at_once_save_time_but_no_money() -> None:
    alone = estimated(sagemaker={"tuning": {"parallel_jobs": 1}})
    together = estimated(sagemaker={"tuning": {"parallel_jobs": 4}})
    first, second = job(alone, "tuning"), job(together, "tuning")
    assert first.seconds
    assert second.seconds
    assert first.seconds.high == pytest.approx(4 * second.seconds.high)
    assert first.cost == second.cost


def test_spot_costs_from_a_tenth_to_all_of_the_price() -> None:
    settings = {"sagemaker": {"training": {"spot": True}}}
    spot, full = job(estimated(**settings), "training"), job(estimated(), "training")
    assert spot.cost
    assert full.cost
    assert spot.cost.low == pytest.approx(full.cost.low / 10)
    assert spot.cost.high == full.cost.high


def test_unknown_prices_are_said_and_left_out_of_the_sum() -> None:
    estimate = estimated(sagemaker={"training": {"instance_type": "ml.c7i.xlarge"}})
    text = "\n".join(estimate_lines(estimate))
    assert "No price is known for ml.c7i.xlarge (training)" in text
    assert "--refresh-prices" in text
    assert "without what is unknown" in text


@pytest.mark.parametrize("unknown", [{"images": None}, {"type": "ml.trn1.2xlarge"}])
def test_unknown_durations_are_said(unknown: dict) -> None:
    sagemaker = {"training": {"instance_type": unknown.get("type", "ml.m5.xlarge")}}
    estimate = estimated(images=unknown.get("images", 1000), sagemaker=sagemaker)
    assert estimate.seconds is None
    assert "unknown time" in "\n".join(estimate_lines(estimate))


def test_the_lines_name_jobs_instances_costs_and_the_source_of_the_prices() -> None:
    lines = estimate_lines(estimated(batch={"split": "test"}))
    assert lines[1].startswith("tuning, 2 at once")
    assert "4 × ml.m5.xlarge" in lines[1]
    text = "\n".join(lines)
    assert "Prices of us-east-1, 2026-11-20: secondary sources" in text
    assert "$0.115 an hour and instance until `run.py down`: $2.76 a day" in text


def test_a_serverless_endpoint_has_no_hourly_price() -> None:
    lines = estimate_lines(estimated(sagemaker={"hosting": {"kind": "serverless"}}))
    (endpoint,) = [line for line in lines if line.startswith("endpoint")]
    assert "serverless" in endpoint
    assert "billed by request" in endpoint
    assert not any("No price is known" in line for line in lines)
