"""A training as a managed job: its request; found or started, followed, and its model fetched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from darkroom.backends.contract import FailedTrainingError, TrainedBundle
from darkroom.backends.sagemaker.jobs.attempts import JobInputs, bring_inputs, start_or_find
from darkroom.backends.sagemaker.jobs.follower import Epochs, TrainingFollower
from darkroom.backends.sagemaker.jobs.logs import metric_definitions
from darkroom.backends.sagemaker.jobs.results import JobResult, ResultStore
from darkroom.backends.sagemaker.requests import volume_key
from darkroom.backends.sagemaker.resources import JobIdentity, tags_of, take_over, training_identity
from darkroom.backends.sagemaker.retry import Pause, interruptible, sleep
from darkroom.backends.sagemaker.session import Clients, SageMakerContext
from darkroom.backends.storage.datasets import channel_uris
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import SILENT, Progress
from darkroom.config import Hyperparameters
from darkroom.config.debugging import NO_DEBUGGING, Debugging
from darkroom.config.sagemaker import NetworkConfig, TrainingJobConfig
from darkroom.data.dataset import Dataset
from darkroom.telemetry.epochs import EpochMetrics, best_epoch
from darkroom.training.channels import MANIFEST_CHANNEL, SHARDS_CHANNEL, WEIGHTS_CHANNEL
from darkroom.training.hyperparameters import debugging_strings, to_strings

# --- the request ---
# Requests of training jobs, and the part of them that tuning jobs share.

Request: TypeAlias = dict[str, Any]


def training_request(
    name: str,
    *,
    identity: JobIdentity,
    dataset: str,
    hyperparameters: Hyperparameters,
    debugging: Debugging,
    site: SageMakerContext,
    weights: str = "",
) -> Request:
    """CreateTrainingJob.

    Args:
        dataset: s3:// URI of the published data set.
        weights: s3:// prefix where the initial weights lie; empty: on S3 are none.
    """
    return {
        "TrainingJobName": name,
        "HyperParameters": to_strings(hyperparameters) | debugging_strings(debugging),
        **job_definition(identity, dataset=dataset, site=site, weights=weights),
        "CheckpointConfig": checkpoint_config(identity, site=site),
        **_debugger(identity, site=site),
        "Tags": tags_of(site, identity=identity.digest, kind=identity.kind),
    }


def job_definition(
    identity: JobIdentity, *, dataset: str, site: SageMakerContext, weights: str
) -> Request:
    """What a training job and the jobs of a tuning say in the same words."""
    config, network = site.config.training, site.config.network
    return {
        "AlgorithmSpecification": {
            "TrainingImage": site.image,
            "TrainingInputMode": config.input_mode,
            "MetricDefinitions": metric_definitions(),
        },
        "RoleArn": site.role,
        "InputDataConfig": _channels(dataset, config=config, weights=weights),
        "OutputDataConfig": {
            "S3OutputPath": identity.place(site, "output"),
            **({"KmsKeyId": site.config.kms_key} if site.config.kms_key else {}),
        },
        "ResourceConfig": _resources(
            config, key=volume_key(config.instance_type, key=site.config.kms_key)
        ),
        "StoppingCondition": _stopping(config),
        "EnableManagedSpotTraining": config.spot,
        **_network(network),
        **({"Environment": site.config.environment} if site.config.environment else {}),
    }


def checkpoint_config(identity: JobIdentity, *, site: SageMakerContext) -> Request:
    """Where every attempt at the work goes on from."""
    return {
        "S3Uri": identity.place(site, "checkpoints"),
        "LocalPath": "/opt/ml/checkpoints",
    }


def _channels(dataset: str, *, config: TrainingJobConfig, weights: str) -> list[Request]:
    """The manifest is a small file that every machine reads at once; so it is copied."""
    uris = channel_uris(dataset) | ({WEIGHTS_CHANNEL: weights} if weights else {})
    return [
        {
            "ChannelName": name,
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": uri,
                    "S3DataDistributionType": (
                        config.distribution if name == SHARDS_CHANNEL else "FullyReplicated"
                    ),
                }
            },
            "CompressionType": "None",
            "InputMode": (
                "File" if name in (MANIFEST_CHANNEL, WEIGHTS_CHANNEL) else config.input_mode
            ),
        }
        for name, uri in uris.items()
    ]


def _resources(config: TrainingJobConfig, *, key: str) -> Request:
    return {
        "InstanceType": config.instance_type,
        "InstanceCount": config.instance_count,
        "VolumeSizeInGB": config.volume_gb,
        **({"VolumeKmsKeyId": key} if key else {}),
        **(
            {"KeepAlivePeriodInSeconds": config.keep_alive_seconds}
            if config.keep_alive_seconds
            else {}
        ),
    }


def _stopping(config: TrainingJobConfig) -> Request:
    return {
        "MaxRuntimeInSeconds": config.max_runtime_seconds,
        **({"MaxWaitTimeInSeconds": config.longest_wait_seconds} if config.spot else {}),
    }


def _network(network: NetworkConfig) -> Request:
    vpc = {
        "VpcConfig": {
            "SecurityGroupIds": list(network.security_group_ids),
            "Subnets": list(network.subnets),
        }
    }
    return {
        **(vpc if network.subnets else {}),
        "EnableNetworkIsolation": network.isolation,
        "EnableInterContainerTrafficEncryption": network.encrypt_traffic,
    }


def _debugger(identity: JobIdentity, *, site: SageMakerContext) -> Request:
    """AWS's debugger is closed to new customers; its profiler is on unless it is refused."""
    if not site.config.training.managed_debugger:
        return {"ProfilerConfig": {"DisableProfiler": True}}
    place = identity.place(site, "debugger")
    return {
        "DebugHookConfig": {"S3OutputPath": place},
        "ProfilerConfig": {"S3OutputPath": place, "DisableProfiler": False},
    }


# --- the job ---


def run_training(
    dataset: Dataset,
    *,
    hyperparameters: Hyperparameters,
    site: SageMakerContext,
    clients: Clients,
    folder: Path,
    debugging: Debugging = NO_DEBUGGING,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> TrainedBundle:
    """Train in a managed job, and fetch the bundle to `folder/bundles/<version>`.

    A job that an earlier start left running is followed, the result of a completed one is
    used, and one that failed or was stopped is gone on from where its checkpoints are.

    Args:
        debugging: how the training is recorded and judged.
        on_epoch: called with each epoch, once and in order, while the job runs.

    Raises:
        UserError: data, weights or hyperparameters cannot be trained with; AWS refuses.
        DarkroomError: the job failed, with its reason and the last lines of its log.
        JobInterrupted: the user interrupted; the job goes on.
    """
    inputs = bring_inputs(
        dataset, hyperparameters=hyperparameters, site=site, clients=clients, progress=progress
    )
    identity = training_identity(
        inputs.dataset,
        hyperparameters=inputs.hyperparameters,
        recording=debugging.recording,
        site=site,
    )
    recordings = folder / "recordings"
    store, epochs = ResultStore(site, clients=clients, pause=pause), Epochs(on_epoch)
    if result := store.look_up(identity):
        progress.message(f"training job {result.job!r} has done this: its result is used")
    else:
        job = _Job(identity, inputs=inputs, debugging=debugging, site=site)
        with _recording_kept_on_failure(store, identity=identity, folder=recordings):
            result = job.run(clients, epochs=epochs, progress=progress, pause=pause)
        store.note(identity, result=result)
    with progress.task(f"fetching {result.model}"):
        bundle = store.fetch_bundle(result, folder=folder / "bundles", dataset=dataset)
        left = store.fetch_output(result, recording=recordings / identity.digest)
        history = epochs.complete(left.history)
    best = best_epoch(history, objective=hyperparameters.objective)
    return TrainedBundle(
        bundle, history=history, best_epoch=best, job=result.job, recording=left.recording
    )


@contextmanager
def _recording_kept_on_failure(
    store: ResultStore, *, identity: JobIdentity, folder: Path
) -> Iterator[None]:
    """Fetch what a failed job has recorded, from beside its checkpoints."""
    try:
        yield
    except UserError:
        raise
    except DarkroomError as error:
        recording = store.fetch_unfinished_recording(identity, to=folder / identity.digest)
        if recording is None:
            raise
        raise FailedTrainingError(str(error), recording=recording) from error


@dataclass(frozen=True)
class _Job:
    """A training, whichever attempt does it."""

    identity: JobIdentity
    inputs: JobInputs
    debugging: Debugging
    site: SageMakerContext

    def run(
        self, clients: Clients, *, epochs: Epochs, progress: Progress, pause: Pause
    ) -> JobResult:
        """Find or start the job, and follow it to its end."""
        name = start_or_find(
            self.identity,
            status_of=_status,
            create=self._create,
            take_over=self._take_over,
            clients=clients,
            progress=progress,
            pause=pause,
        )
        hyperparameters = self.inputs.hyperparameters
        follower = TrainingFollower(
            name, clients=clients, epochs=epochs, progress=progress, pause=pause
        )
        with (
            interruptible("training", name),
            progress.task(f"training job {name}", total=hyperparameters.epochs) as task,
        ):
            return follower.follow(hyperparameters, task=task)

    def _create(self, clients: Clients, name: str) -> None:
        request = training_request(
            name,
            identity=self.identity,
            dataset=self.inputs.dataset.shards,
            hyperparameters=self.inputs.hyperparameters,
            debugging=self.debugging,
            site=self.site,
            weights=self.inputs.weights,
        )
        clients.sagemaker.create_training_job(**request)

    def _take_over(self, clients: Clients, name: str) -> None:
        job = clients.sagemaker.describe_training_job(TrainingJobName=name)
        take_over(job["TrainingJobArn"], site=self.site, clients=clients)


def _status(clients: Clients, name: str) -> str:
    return clients.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
