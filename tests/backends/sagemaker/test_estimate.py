"""What a run would take and cost: ranges that follow the configuration."""

import pytest
import torchvision

from darkroom.backends.sagemaker.costs import throughput
from darkroom.backends.sagemaker.costs.estimate import (
    STARTUP_SECONDS,
    Estimate,
    JobEstimate,
    duration,
    estimate_lines,
    estimate_run,
    limit_notes,
    limit_problems,
)
from darkroom.backends.sagemaker.costs.throughput import DataSize, Span, Workload, training_speed
from darkroom.config import Config
from darkroom.config.sections import ARCHITECTURES


def estimated(
    *, images: int | None = 10_000, size: int | None = None, region: str = "us-east-1", **sections
) -> Estimate:
    data = DataSize.of(images=images, size=size)
    return estimate_run(Config.model_validate(sections), data=data, region=region)


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
    assert large.low == pytest.approx(4 * small.low, rel=0.1)
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


IMAGENET = {"images": 1_331_000, "size": 147_000_000_000}
LARGE = {"model": {"architecture": "resnet50"}, "training": {"epochs": 90}}


def test_disks_too_small_for_the_data_are_problems_that_say_what_is_enough() -> None:
    problems = limit_problems(estimated(**IMAGENET, **LARGE))
    assert problems[:2] == [
        "sagemaker.orchestration.volume_gb: 31 GB of it can be used, and the data as they come, "
        "and unpacked or packed anew takes 297 GB; set it to 300 or more",
        "sagemaker.training.volume_gb: 31 GB of it can be used, and shards, the same unpacked, and "
        "all images decoded at working size takes 560 GB; set it to 550 or more",
    ]
    enough = {"orchestration": {"volume_gb": 300}, "training": {"volume_gb": 550}}
    left = limit_problems(estimated(**IMAGENET, **LARGE, sagemaker=enough))
    assert not any("volume_gb" in problem for problem in left)


def test_machines_with_disks_of_their_own_have_no_volume_to_enlarge() -> None:
    machines = {"training": {"instance_type": "ml.g5.xlarge"}}
    problems = limit_problems(estimated(**IMAGENET, **LARGE, sagemaker=machines))
    assert not any("training.volume_gb" in problem for problem in problems)


def test_fast_file_mode_saves_one_copy() -> None:
    def needed(mode: str) -> float:
        estimate = estimated(**IMAGENET, sagemaker={"training": {"input_mode": mode}})
        (limit,) = [each for each in estimate.limits if each.setting.endswith("training.volume_gb")]
        return limit.needed.high

    assert needed("File") - needed("FastFile") == pytest.approx(0.85 * IMAGENET["size"])


def test_a_run_that_cannot_end_in_time_is_a_problem_and_one_that_may_not_is_a_note() -> None:
    trained = {"tuning": {"enabled": False}, "training": {"epochs": 10}}
    estimate = estimated(images=100_000, **trained)
    (limit,) = [each for each in estimate.limits if "training.max_runtime" in each.setting]
    between = {"training": {"max_runtime_seconds": int(limit.needed.high) - 1}}
    shorter = {"training": {"max_runtime_seconds": int(limit.needed.low) - 1}}
    started = "sagemaker.training.max_runtime_seconds: "
    first = estimated(images=100_000, **trained, sagemaker=between)
    assert any(line.startswith(started) for line in limit_notes(first))
    assert not any(line.startswith(started) for line in limit_problems(first))
    second = estimated(images=100_000, **trained, sagemaker=shorter)
    assert any(line.startswith(started) for line in limit_problems(second))


def test_time_and_cost_of_the_orchestration_grow_with_the_data() -> None:
    def of(size: int) -> tuple[Span, Span]:
        orchestration = estimated(images=None, size=size, tuning={"enabled": False}).jobs[0]
        assert orchestration.seconds
        assert orchestration.cost
        return orchestration.seconds, orchestration.cost

    small, large = of(145_000_000), of(145_000_000_000)
    assert large[0].low > 3600
    assert large[0].low > 10 * small[0].low
    assert large[1].low > 10 * small[1].low


def test_what_is_done_before_the_first_step_takes_what_was_measured() -> None:
    """The reference: 67 minutes of one core to validate ImageNet, and 73 to decode it."""
    data = DataSize.of(**IMAGENET)
    assert data
    inspected, decoded = data.inspected("ml.m5.xlarge"), data.decoded("ml.m5.xlarge")
    assert inspected.low == pytest.approx(67 * 60 / 4, rel=0.05)
    assert inspected.high < 40 * 60
    assert decoded.low == pytest.approx(73 * 60 / 4, rel=0.05)
    assert decoded.high < 35 * 60
    assert data.decoded_bytes(256).low / IMAGENET["images"] == pytest.approx(272_000, rel=0.01)


@pytest.mark.parametrize(("alone", "together"), [(2500, 1115), (800, 573)])
def test_batches_made_between_two_steps_slow_a_fast_device_as_measured(
    alone: float, together: float
) -> None:
    speed = throughput._between_batches(alone, image_size=224)
    assert speed == pytest.approx(together, rel=0.01)


def test_an_archive_that_nobody_has_counted_is_estimated_by_its_bytes() -> None:
    estimate = estimated(images=None, size=145_000_000_000)
    text = "\n".join(estimate_lines(estimate))
    assert estimate.seconds
    assert "145 GB in 480,000–2,900,000 images (50–300 kB each: nobody has counted them)" in text
    assert "unknown" not in text


def test_an_upload_from_this_machine_is_part_of_the_time() -> None:
    here = estimated(**IMAGENET, data={"source": "photos/"})
    there = estimated(**IMAGENET, data={"source": "s3://photos/data"})
    assert there.upload is None
    assert here.upload
    assert here.seconds
    assert there.seconds
    assert here.seconds.low - there.seconds.low == pytest.approx(here.upload.low)
    assert "upload of 147 GB from this machine  0.8–40.8 h" in estimate_lines(here)


def test_the_requests_of_a_transform_are_paid_for() -> None:
    estimate = estimated(**IMAGENET, batch={"split": "train"})
    assert job(estimate, "batch transform").requests_usd == pytest.approx(13 * 0.7, rel=0.05)


def test_a_duration_without_a_range_is_one_number() -> None:
    assert duration(Span(86_400, 86_400)) == "24.0 h"
    assert duration(Span(600, 600)) == "10 min"
    assert duration(Span(600, 1200)) == "10–20 min"
