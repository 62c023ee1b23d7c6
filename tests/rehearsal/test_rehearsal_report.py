"""What a rehearsal says at its end."""

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from rehearsal.emulator.records import Record, Records
from rehearsal.report import render


def job(**more: object) -> Record:
    values = {
        "kind": "training-job",
        "name": "darkroom-training-1",
        "status": "Completed",
        "created": datetime(2026, 11, 20, tzinfo=UTC),
        "instance_type": "ml.m5.xlarge",
        "instance_count": 2,
        "startup_seconds": 180,
        "executed_seconds": 3600,
    }
    return Record.model_validate(values | more)


def shown(*resources: Record, **more: object) -> str:
    values = {
        "region": "us-east-1",
        "account": "123456789012",
        "sandboxed": True,
        "resources": list(resources),
        "calls": {},
        "refused": [],
        "mistakes": [],
        "faults": [],
        "faults_applied": [],
        "not_covered": ["IAM: no permission is evaluated"],
    }
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        console.print(render(Records.model_validate(values | more), folder=Path("here")))
    return capture.get()


def test_a_job_costs_what_its_instances_do_for_the_time_that_it_ran() -> None:
    text = shown(job())
    assert "2 × ml.m5.xlarge" in text
    assert "3600 s" in text
    assert "$0.4600" in text  # two instances, an hour, $0.23 each
    assert "63 minutes one after the other, about $0.46" in text


def test_an_unknown_price_is_said_and_not_guessed() -> None:
    text = shown(job(instance_type="ml.unheard.large"))
    assert "unknown" in text
    assert "The price of 1 is not known" in text


def test_models_and_other_records_are_not_jobs() -> None:
    assert "0 jobs and endpoints" in shown(job(kind="model", instance_type=""))


def test_a_job_that_did_not_complete_says_so() -> None:
    assert "darkroom-training-1 (Failed)" in shown(job(status="Failed"))


def test_faults_are_counted() -> None:
    faults = [{"name": "throttling"}, {"name": "slow_s3"}, {"name": "throttling"}]
    assert "2 × throttling, 1 × slow_s3" in shown(job(), faults_applied=faults)


def test_what_was_not_covered_is_listed() -> None:
    assert "Not covered: IAM: no permission is evaluated" in shown(job())
