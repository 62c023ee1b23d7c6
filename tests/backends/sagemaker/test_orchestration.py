"""The orchestrating job, followed from afar: fakes in the place of AWS."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from darkroom.backends.sagemaker.handover import COMPONENTS_BEGIN, announce_components, leave_reason
from darkroom.backends.sagemaker.orchestration import OrchestrationJob, image_of_this_job
from darkroom.base.errors import DarkroomError, UserError


class Told:
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


class Aws:
    """A job that goes through states, and a log."""

    def __init__(self, *states: Mapping[str, Any], lines: Sequence[str] = ()) -> None:
        self._states = list(states)
        self._lines = list(lines)
        self.sagemaker = self.logs = self

    def renew(self) -> None:
        pass

    def describe_training_job(self, **_: str) -> Mapping[str, Any]:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, Exception):
            raise state
        return state

    def get_paginator(self, _: str) -> Any:
        pages = [{"logStreams": [{"logStreamName": "job/algo-1-0"}]}]
        return SimpleNamespace(paginate=lambda **_: pages)

    def get_log_events(self, **_: str) -> Mapping[str, Any]:
        events = [{"timestamp": n, "message": line} for n, line in enumerate(self._lines)]
        self._lines = []
        return {"events": events, "nextForwardToken": "end"}


def state(status: str, detail: str = "", **more: str) -> dict[str, str]:
    return {"TrainingJobStatus": status, "SecondaryStatus": detail or status, **more}


def follow(aws: Aws) -> tuple[DarkroomError | None, list[str]]:
    told = Told()
    outcome = OrchestrationJob("job", aws).follow(told, pause=lambda _: None)  # type: ignore[arg-type]
    return outcome, told.messages


def test_lines_are_shown_from_the_first_component_on() -> None:
    lines = ["noise of libraries", COMPONENTS_BEGIN, "train: 1/2", "train: 2/2"]
    outcome, shown = follow(Aws(state("InProgress", "Training"), state("Completed"), lines=lines))
    assert outcome is None
    assert shown == [
        "orchestration: Training",
        "train: 1/2",
        "train: 2/2",
        "orchestration: Completed",
    ]


def test_a_users_mistake_in_a_component_comes_back_as_one() -> None:
    reason = "AlgorithmError: UserError: no images in 's3://b/p', exit code: 1"
    outcome, _ = follow(Aws(state("Failed", FailureReason=reason)))
    assert isinstance(outcome, UserError)
    assert str(outcome) == "no images in 's3://b/p'"


def test_a_failure_of_ours_is_told_in_its_own_words() -> None:
    reason = "AlgorithmError: DarkroomError: the disk is full, exit code: 1"
    outcome, _ = follow(Aws(state("Failed", FailureReason=reason), lines=["a traceback"]))
    assert type(outcome) is DarkroomError
    assert str(outcome) == "the disk is full"


def test_anything_else_comes_with_the_last_lines_of_the_log() -> None:
    reason = "AlgorithmError: ValueError: what, exit code: 1"
    outcome, _ = follow(Aws(state("Failed", FailureReason=reason), lines=["Traceback", "what"]))
    assert outcome
    assert str(outcome).splitlines()[-2:] == ["  Traceback", "  what"]


def test_a_job_that_was_stopped_says_so() -> None:
    outcome, _ = follow(Aws(state("Stopped", "MaxRuntimeExceeded")))
    assert "was stopped: MaxRuntimeExceeded" in str(outcome)


def test_throttling_is_waited_out() -> None:
    throttled = ClientError({"Error": {"Code": "ThrottlingException"}}, "DescribeTrainingJob")
    outcome, _ = follow(Aws(throttled, throttled, state("Completed")))  # type: ignore[arg-type]
    assert outcome is None


def test_an_interruption_names_the_job_that_goes_on() -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    job = OrchestrationJob("job", Aws(state("InProgress")))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt, match="'job' goes on"):
        job.follow(Told(), pause=interrupted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("a mistake"), "UserError: a mistake"),
        (DarkroomError("a failure"), "DarkroomError: a failure"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_the_job_leaves_the_reason_where_sagemaker_looks(
    error: Exception, text: str, tmp_path: Path
) -> None:
    leave_reason(error, file=tmp_path / "failure")
    assert (tmp_path / "failure").read_text() == text


def test_elsewhere_nothing_is_left(tmp_path: Path) -> None:
    leave_reason(UserError("x"), file=tmp_path / "output" / "failure")
    assert list(tmp_path.iterdir()) == []


def test_the_first_line_is_printed_in_a_job_only_and_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    announce_components.cache_clear()
    announce_components()
    assert capsys.readouterr().out == ""
    announce_components.cache_clear()
    monkeypatch.setenv("TRAINING_JOB_NAME", "job")
    announce_components()
    announce_components()
    assert capsys.readouterr().out == f"{COMPONENTS_BEGIN}\n"


def test_the_image_that_zenml_built_is_that_of_the_job_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = Aws({"AlgorithmSpecification": {"TrainingImage": "ecr/zenml:1"}})
    with pytest.raises(UserError, match="DARKROOM_IMAGE is not set"):
        image_of_this_job(aws)  # type: ignore[arg-type]
    monkeypatch.setenv("TRAINING_JOB_NAME", "job")
    assert image_of_this_job(aws) == "ecr/zenml:1"  # type: ignore[arg-type]
