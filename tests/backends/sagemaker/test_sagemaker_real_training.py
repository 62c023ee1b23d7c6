"""Managed jobs in which the `train` program really trains.

In a file of its own: each has an emulator to itself, whose end would empty another's buckets.
"""

from pathlib import Path

import pytest

from darkroom.backends.sagemaker.training.job import run_training
from darkroom.config.debugging import Debugging, RecordingConfig
from darkroom.data.dataset import Dataset
from darkroom.debugging.recording.reader import read_evidence
from pretended_jobs import account
from quiet_smdebug import import_smdebug
from small_trainings import read_dataset, small_hyperparameters, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "images")


@pytest.mark.slow
def test_a_job_trains_the_same_model_as_this_machine(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darkroom.backends.local.training import train_bundle

    hyperparameters = small_hyperparameters(threads=1)
    with account(tmp_path / "aws", dataset=dataset, real=True) as aws:
        aws.enter(monkeypatch)
        managed = run_training(
            read_dataset(dataset.root),
            hyperparameters=hyperparameters,
            site=aws.site(),
            clients=aws.clients,
            folder=tmp_path / "managed",
        )
    local = train_bundle(
        dataset,
        hyperparameters=hyperparameters,
        folder=tmp_path / "local",
        cache=tmp_path / "cache",
    )
    timing = {"images_per_second", "seconds"}
    assert [epoch.model_dump(exclude=timing) for epoch in managed.history] == [
        epoch.model_dump(exclude=timing) for epoch in local.history
    ]
    assert managed.best_epoch == local.best_epoch
    assert managed.bundle.metadata.version == local.bundle.metadata.version


@pytest.mark.slow
def test_what_a_job_recorded_is_a_trial_of_smdebug_on_s3(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_smdebug()
    from smdebug.trials import create_trial

    with account(tmp_path / "aws", dataset=dataset, real=True) as aws:
        aws.enter(monkeypatch)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        trained = run_training(
            dataset,
            hyperparameters=small_hyperparameters(threads=1),
            site=aws.site(),
            clients=aws.clients,
            folder=tmp_path / "managed",
            debugging=Debugging(recording=RecordingConfig(backend="smdebug")),
        )
        job = aws.clients.sagemaker.describe_training_job(TrainingJobName=trained.job)
        trial = create_trial(f"{job['CheckpointConfig']['S3Uri'].rstrip('/')}/recording/tensors")
        (loss,) = trial.tensor_names(regex="CrossEntropyLoss_output_0")
        there = [float(trial.tensor(loss).value(step)) for step in trial.steps()[:3]]
    assert trained.recording
    here = read_evidence(trained.recording).steps.loss
    assert there == pytest.approx(here[:3].tolist(), rel=1e-6)


@pytest.mark.slow
def test_two_machines_that_share_the_images_train_one_model(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded = {"instance_count": 2, "distribution": "ShardedByS3Key"}
    told: list[int] = []
    with account(tmp_path / "aws", dataset=dataset, real=True) as aws:
        aws.enter(monkeypatch)
        trained = run_training(
            dataset,
            hyperparameters=small_hyperparameters(threads=1),
            site=aws.site(training=sharded),
            clients=aws.clients,
            folder=tmp_path,
            on_epoch=lambda epoch: told.append(epoch.epoch),
        )
        job = aws.clients.sagemaker.describe_training_job(TrainingJobName=trained.job)
    assert job["ResourceConfig"]["InstanceCount"] == 2
    assert told == [epoch.epoch for epoch in trained.history] == [1, 2, 3]
