"""Requests of training jobs, and the part of them that tuning jobs share."""

from typing import Any, TypeAlias

from darkroom.backends.published_datasets import channel_uris
from darkroom.backends.sagemaker.identity import JobIdentity, tags_of
from darkroom.backends.sagemaker.metric_lines import metric_definitions
from darkroom.backends.sagemaker.requests.volumes import volume_key
from darkroom.backends.sagemaker.site import Site
from darkroom.config import Hyperparameters
from darkroom.config.debugging import Debugging
from darkroom.config.sagemaker import NetworkConfig, TrainingJobConfig
from darkroom.training.channels import MANIFEST_CHANNEL, SHARDS_CHANNEL
from darkroom.training.hyperparameters import debugging_strings, to_strings
from darkroom.training.job_folders import WEIGHTS_CHANNEL

Request: TypeAlias = dict[str, Any]


def training_request(
    name: str,
    *,
    identity: JobIdentity,
    dataset: str,
    hyperparameters: Hyperparameters,
    debugging: Debugging,
    site: Site,
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


def job_definition(identity: JobIdentity, *, dataset: str, site: Site, weights: str) -> Request:
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


def checkpoint_config(identity: JobIdentity, *, site: Site) -> Request:
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


def _debugger(identity: JobIdentity, *, site: Site) -> Request:
    """AWS's debugger is closed to new customers; its profiler is on unless it is refused."""
    if not site.config.training.managed_debugger:
        return {"ProfilerConfig": {"DisableProfiler": True}}
    place = identity.place(site, "debugger")
    return {
        "DebugHookConfig": {"S3OutputPath": place},
        "ProfilerConfig": {"S3OutputPath": place, "DisableProfiler": False},
    }
