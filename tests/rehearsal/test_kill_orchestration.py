"""The machine that runs the pipeline crashes at each stage; the same command goes on."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from kill_rehearsed import Command, Place, kept_up, prepared, statuses, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

Stage = Callable[[Place, str], object]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with kept_up(tmp_path_factory.mktemp("kills")) as place:
        yield place


def has(kind: str, *, statuses: tuple[str, ...]) -> Stage:
    """There is a job or endpoint in such a state."""
    return lambda place, _: [one for one in place.things(kind) if one.status in statuses]


def started(place: Place, *, before: int, command: Command) -> str:
    """The job that the command starts, after so many others."""
    jobs = until(lambda: place.orchestrations()[before:], lambda: command.process.poll() is None)
    return jobs[0].name


def crash_at(place: Place, stage: Stage, *, options: tuple[str, ...]) -> None:
    """Give the command, and let the machine of its pipeline crash."""
    before = len(place.orchestrations())
    command = place.start(*options)
    job = started(place, before=before, command=command)
    until(lambda: stage(place, job), lambda: command.process.poll() is None)
    place.crash(job)
    assert command.ends() == 1, command.said
    assert "exit code: 137" in command.said
    assert place.unfinished_runs() == place.unfinished_records() == []


@pytest.mark.long
def test_no_job_runs_twice_whenever_the_pipeline_is_killed(place: Place) -> None:
    stages = [
        has("hyper-parameter-tuning-job", statuses=("InProgress",)),
        has("endpoint", statuses=("Creating",)),
        has("transform-job", statuses=("InProgress", "Completed")),  # after the check
    ]
    for stage in stages:
        crash_at(place, stage, options=("--keep-endpoint",))
    command = place.start("--keep-endpoint")
    assert command.ends() == 0, command.said
    assert statuses(place.orchestrations()) == ["Completed", *["Failed"] * len(stages)]
    assert statuses(place.things("hyper-parameter-tuning-job")) == ["Completed"]
    assert statuses(place.things("training-job")) == ["Completed"] * 2  # the trials
    assert statuses(place.things("endpoint")) == ["InService"]
    assert statuses(place.things("transform-job")) == ["Completed"]
    records = place.records()
    assert records.mistakes == []
    calls = records.calls
    created = ("HyperParameterTuningJob", "Endpoint", "EndpointConfig", "TransformJob")
    assert [calls[f"sagemaker:Create{name}"] for name in created] == [1, 1, 1, 1]
    assert place.unfinished_runs() == place.unfinished_records() == []
    packages = place.client("sagemaker").list_model_packages(
        ModelPackageGroupName="darkroom-classifier"
    )
    assert len(packages["ModelPackageSummaryList"]) == 1


@pytest.mark.long
def test_a_training_goes_on_without_pipeline_and_without_whoever_started_it(place: Place) -> None:
    options = ("--set", "tuning.enabled=false", "--set", "training.epochs=100")
    trials, before = len(place.things("training-job")), len(place.orchestrations())
    crash_at(
        place,
        lambda place, _: [job for job in place.things("training-job")[trials:] if job.started],
        options=options,
    )
    killed = place.start(*options)
    started(place, before=before + 1, command=killed)
    killed.says("orchestration: Training")
    killed.process.send_signal(signal.SIGKILL)
    killed.ends()

    interrupted, patient = place.start(*options), place.start(*options)
    interrupted.says("is under way: following it")
    interrupted.says("orchestration:")
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.ends() == 130, interrupted.said
    assert "goes on. The same command follows it again" in interrupted.said
    assert "down --run" in interrupted.said

    assert patient.ends() == 0, patient.said
    assert "is under way: following it" in patient.said
    assert statuses(place.orchestrations()[before:]) == ["Completed", "Failed"]
    assert statuses(place.things("training-job")[trials:]) == ["Completed"]
    assert place.unfinished_runs() == place.unfinished_records() == []


def test_a_stand_in_that_a_command_started_ends_with_it_and_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path, environment=prepared(tmp_path))
    command = place.start()
    command.says("orchestration: Training")
    started = psutil.Process(command.process.pid).children(recursive=True)
    command.process.send_signal(signal.SIGINT)
    assert command.ends() == 130, command.said
    assert "ends with its stand-in" in command.said
    assert "goes on. The same" not in command.said
    assert psutil.wait_procs(started, timeout=20)[1] == []
