"""Trainings as managed jobs, in a stand-in for AWS."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.backends.contract import TrainedBundle
from darkroom.backends.sagemaker.cleanup import Selection, find, remove
from darkroom.backends.sagemaker.resources import Resource
from darkroom.backends.sagemaker.retry import JobInterrupted
from darkroom.backends.sagemaker.training.job import run_training
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import SilentProgress
from darkroom.config import Hyperparameters
from darkroom.data.dataset import Dataset
from darkroom.telemetry.epochs import EpochMetrics
from pretended_jobs import Account, account
from small_trainings import write_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def opened(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with account(tmp_path_factory.mktemp("aws"), dataset=dataset) as opened:
        yield opened


@pytest.fixture
def aws(opened: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    opened.enter(monkeypatch)
    return opened


def briefly(seconds: float) -> None:
    time.sleep(min(seconds, 0.1))


class Pause:
    """Waits briefly, and interrupts the user's program once after so many waits."""

    def __init__(self, waits: int) -> None:
        self._left = waits

    def __call__(self, seconds: float) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt
        briefly(seconds)


@pytest.fixture
def train(aws: Account, dataset: Dataset, tmp_path: Path) -> Any:
    """Run a training whose seed is this test's, so that it is a job of its own."""

    def run(*, seed: int, pause: Any = briefly, config: Any = None, **more: Any) -> TrainedBundle:
        return run_training(
            dataset,
            hyperparameters=Hyperparameters(epochs=4, weights="none", seed=seed),
            site=aws.site(**(config or {})),
            clients=aws.clients,
            folder=tmp_path,
            pause=pause,
            **more,
        )

    return run


def test_a_job_is_followed_and_its_model_fetched(train: Any, aws: Account, tmp_path: Path) -> None:
    told: list[EpochMetrics] = []
    trained = train(seed=1, on_epoch=told.append)
    assert [epoch.epoch for epoch in told] == [1, 2, 3, 4]
    assert [epoch.epoch for epoch in trained.history] == [1, 2, 3, 4]
    assert trained.history[0].images_per_second == 100 / 3  # exact, as no log line is
    assert trained.best_epoch == 4
    assert trained.job.endswith("-1")
    assert trained.bundle.folder == tmp_path / "bundles" / trained.bundle.metadata.version
    assert {path.name for path in (tmp_path / "bundles").iterdir()} == {
        trained.bundle.metadata.version,
        ".lock",
    }
    tags = aws.clients.sagemaker.list_tags(
        ResourceArn=aws.clients.sagemaker.describe_training_job(TrainingJobName=trained.job)[
            "TrainingJobArn"
        ]
    )["Tags"]
    assert {"Key": "darkroom:run", "Value": "a-run"} in tags


def test_the_same_training_is_not_paid_for_twice(train: Any, aws: Account) -> None:
    first = train(seed=2)
    told: list[EpochMetrics] = []
    again = train(seed=2, on_epoch=told.append)
    assert again == first
    assert told == first.history
    assert aws.jobs(first.job.removesuffix("1")) == [first.job]


def test_another_training_is_another_job(train: Any) -> None:
    assert train(seed=3).job != train(seed=4).job


def test_an_interrupted_following_leaves_the_job_and_finds_it_again(
    train: Any, aws: Account
) -> None:
    slow = {"environment": {"PRETEND_PAUSE": "0.5"}}
    with pytest.raises(JobInterrupted) as interruption:
        train(seed=5, pause=Pause(6), config=slow)
    assert interruption.value.kind == "training"
    job = interruption.value.name
    assert job in [each.name for each in aws.running()]
    told: list[int] = []
    trained = train(seed=5, on_epoch=lambda epoch: told.append(epoch.epoch))
    assert trained.job == job
    assert told == [1, 2, 3, 4]
    assert aws.jobs(job.removesuffix("1")) == [job]
    assert aws.running() == []


def test_a_stopped_job_is_gone_on_from_its_checkpoint_by_another(train: Any, aws: Account) -> None:
    def stop_after_two(epoch: EpochMetrics) -> None:
        if epoch.epoch == 2:
            (job,) = aws.running()
            remove(job, clients=aws.clients)

    slow = {"environment": {"PRETEND_PAUSE": "0.7"}}
    with pytest.raises(DarkroomError, match=r"was stopped\. The same command goes on"):
        train(seed=6, on_epoch=stop_after_two, config=slow)
    told: list[int] = []
    trained = train(seed=6, on_epoch=lambda epoch: told.append(epoch.epoch))
    assert trained.job.endswith("-2")
    assert told == [1, 2, 3, 4]
    log = aws.clients.logs.filter_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{trained.job}/"
    )["events"]
    assert any(event["message"].startswith("going on after epoch") for event in log)


def test_a_job_that_has_ended_is_stopped_without_a_word(train: Any, aws: Account) -> None:
    ended = Resource("training job", name=train(seed=2).job, arn="")
    remove(ended, clients=aws.clients)


def test_runs_do_not_see_each_others_jobs(train: Any, aws: Account) -> None:
    slow = {"environment": {"PRETEND_PAUSE": "0.5"}}
    with pytest.raises(JobInterrupted):
        train(seed=7, pause=Pause(4), config=slow)
    assert find(Selection(run="another-run"), clients=aws.clients) == []
    (job,) = aws.running()
    remove(job, clients=aws.clients)


@pytest.mark.parametrize(("code", "kind"), [("1", DarkroomError), ("2", UserError)])
def test_a_failed_job_says_why_with_the_end_of_its_log(
    train: Any, code: str, kind: type[DarkroomError]
) -> None:
    failing = {"environment": {"PRETEND_FAIL": "no images of 'cat'", "PRETEND_EXIT": code}}
    with pytest.raises(DarkroomError) as failure:
        train(seed=10 + int(code), config=failing)
    assert type(failure.value) is kind
    message = str(failure.value)
    assert "failed: no images of 'cat'." in message
    assert "exit code" not in message
    assert message.endswith("  something is wrong")


def test_a_job_after_a_failed_one_is_another_attempt(train: Any) -> None:
    with pytest.raises(DarkroomError):
        train(seed=8, config={"environment": {"PRETEND_FAIL": "full"}})
    assert train(seed=8).job.endswith("-2")


def test_expired_credentials_are_read_anew(train: Any, aws: Account) -> None:
    before = len(aws.struck())
    aws.fault("expired_credentials", operations="DescribeTrainingJob", times=2)
    trained = train(seed=9)
    assert [epoch.epoch for epoch in trained.history] == [1, 2, 3, 4]
    assert aws.struck()[before:] == ["expired_credentials"] * 2


@pytest.mark.slow  # botocore itself waits before it gives up, and then we do
def test_throttling_and_lost_connections_are_survived(train: Any, aws: Account) -> None:
    before = len(aws.struck())
    aws.fault("throttling", operations="Describe*", times=9)
    aws.fault("lost_connection", services="logs", times=3)
    trained = train(seed=21)
    assert [epoch.epoch for epoch in trained.history] == [1, 2, 3, 4]
    assert {*aws.struck()[before:]} == {"throttling", "lost_connection"}


def test_a_refused_request_is_told_at_once(train: Any) -> None:
    with pytest.raises(UserError, match=r"training job .*AWS refuses CreateTrainingJob"):
        train(seed=20, config={"training": {"instance_type": "ml.nonsense.xlarge"}})


def test_weights_of_the_user_reach_the_job(aws: Account, dataset: Dataset, tmp_path: Path) -> None:
    weights = tmp_path / "start.safetensors"
    weights.write_bytes(b"weights")
    trained = run_training(
        dataset,
        hyperparameters=Hyperparameters(epochs=2, weights=str(weights)),
        site=aws.site(),
        clients=aws.clients,
        folder=tmp_path,
        pause=briefly,
    )
    job = aws.clients.sagemaker.describe_training_job(TrainingJobName=trained.job)
    uris = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in job["InputDataConfig"]
    }
    assert job["HyperParameters"]["weights"] == uris["weights"]
    key = uris["weights"].removeprefix("s3://bucket/") + "start.safetensors"
    assert aws.clients.s3.get_object(Bucket="bucket", Key=key)["Body"].read() == b"weights"


def test_a_spot_job_that_loses_its_machine_goes_on_by_itself(train: Any, aws: Account) -> None:
    told: list[int] = []
    states: list[str] = []

    class Messages(SilentProgress):
        def message(self, text: str) -> None:
            states.append(text)

    def interrupt_after_one(epoch: EpochMetrics) -> None:
        if not told:
            aws.fault("spot_interruption", times=1)
        told.append(epoch.epoch)

    trained = train(
        seed=30,
        on_epoch=interrupt_after_one,
        progress=Messages(),
        config={"training": {"spot": True}, "environment": {"PRETEND_PAUSE": "2"}},
    )
    assert told == [epoch.epoch for epoch in trained.history] == [1, 2, 3, 4]
    assert any("Interrupted" in state for state in states)
    assert trained.job.endswith("-1")
