"""The folder that a training container knows as /opt/ml."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rehearsal.jobs.training_job import TrainingJob

_FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints", "code")
NETWORK_INTERFACE = "lo"
"""On AWS it is eth0; here all hosts are this machine."""


def write_training_folder(ml: Path, *, job: TrainingJob, host: str) -> None:
    """Make /opt/ml of one host, without the channels' content."""
    for name in _FOLDERS:
        (ml / name).mkdir(parents=True, exist_ok=True)
    config = ml / "input" / "config"
    _write(config / "hyperparameters.json", job.request.get("HyperParameters", {}))
    _write(config / "resourceconfig.json", _resources(job, host=host))
    _write(config / "inputdataconfig.json", _inputs(job))
    if hook := job.request.get("DebugHookConfig"):
        _write(config / "debughookconfig.json", hook)


def hosts_file(job: TrainingJob) -> dict[str, str]:
    """Addresses of a job's hosts: all on loopback."""
    return {host: f"127.0.0.{number}" for number, (host, _) in enumerate(job.instances, 1)}


def _resources(job: TrainingJob, *, host: str) -> dict[str, Any]:
    instances = job.instances
    groups = job.resources.get("InstanceGroups") or [
        {"InstanceGroupName": "homogeneousCluster", "InstanceType": instances[0][1]}
    ]
    return {
        "current_host": host,
        "current_instance_type": dict(instances)[host],
        "current_group_name": groups[0]["InstanceGroupName"],
        "hosts": [name for name, _ in instances],
        "instance_groups": [
            {
                "instance_group_name": group["InstanceGroupName"],
                "instance_type": group["InstanceType"],
                "hosts": [n for n, kind in instances if kind == group["InstanceType"]],
            }
            for group in groups
        ],
        "network_interface_name": NETWORK_INTERFACE,
    }


def _inputs(job: TrainingJob) -> dict[str, Any]:
    mode = job.request["AlgorithmSpecification"]["TrainingInputMode"]
    return {
        channel["ChannelName"]: _input(channel, mode=channel.get("InputMode", mode))
        for channel in job.request.get("InputDataConfig", ())
    }


def _input(channel: Mapping[str, Any], *, mode: str) -> dict[str, Any]:
    source = channel["DataSource"]["S3DataSource"]
    found = {
        # A container cannot tell FastFile from File, and is told File on AWS as well.
        "TrainingInputMode": "File" if mode == "FastFile" else mode,
        "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
    }
    if "ContentType" in channel:
        found["ContentType"] = channel["ContentType"]
    return found


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
