"""Darkroom's own `train` and `serve` in tuning jobs, endpoints and transforms of the rehearsal."""

import io
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from PIL import Image

from darkroom.backends.sagemaker.jobs.logs import metric_definitions
from pictures import write_image_folder
from rehearsal.emulator.server import Running, emulator
from small_bundles import write_small_bundle

pytestmark = pytest.mark.slow

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/darkroom:1"
ROLE = "arn:aws:iam::123456789012:role/Darkroom"
MACHINES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with emulator(tmp_path_factory.mktemp("programs"), images={IMAGE: None}) as running:
        running.client("s3").create_bucket(Bucket="bucket")
        yield running


@pytest.fixture(scope="module")
def model(aws: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of a tiny bundle; its name."""
    bundle = write_small_bundle(tmp_path_factory.mktemp("bundle") / "bundle")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(bundle.iterdir()):
            archive.add(path, arcname=path.name)
    s3 = aws.client("s3")
    for key in ("model.tar.gz", "many/one.tar.gz"):
        s3.put_object(Bucket="bucket", Key=key, Body=buffer.getvalue())
    aws.client("sagemaker").create_model(
        ModelName="tiny",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz"},
    )
    return "tiny"


def red_picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (250, 0, 0)).save(buffer, format="png")
    return buffer.getvalue()


def serve(aws: Running, model: str) -> None:
    """An endpoint that has the model's name."""
    sagemaker = aws.client("sagemaker")
    sagemaker.create_endpoint_config(
        EndpointConfigName=model,
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": model,
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 1,
            }
        ],
    )
    sagemaker.create_endpoint(EndpointName=model, EndpointConfigName=model)
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=model, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )


def test_our_server_answers_behind_an_endpoint(aws: Running, model: str) -> None:
    serve(aws, model)
    runtime = aws.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(
        EndpointName=model, Body=red_picture(), ContentType="image/png"
    )
    assert "red" in answer["Body"].read().decode()
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=model, Body=b"no picture", ContentType="image/png")
    assert caught.value.response["Error"]["Code"] == "ModelError"


def test_our_server_transforms_a_prefix(aws: Running, model: str) -> None:
    s3, sagemaker = aws.client("s3"), aws.client("sagemaker")
    for number in range(3):
        s3.put_object(Bucket="bucket", Key=f"batch/{number}.png", Body=red_picture())
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/batch/"}
    sagemaker.create_transform_job(
        TransformJobName="batch",
        ModelName=model,
        MaxConcurrentTransforms=2,
        TransformInput={"DataSource": {"S3DataSource": source}, "ContentType": "image/png"},
        TransformOutput={"S3OutputPath": "s3://bucket/batch-out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    sagemaker.get_waiter("transform_job_completed_or_stopped").wait(
        TransformJobName="batch", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    for number in range(3):
        body = s3.get_object(Bucket="bucket", Key=f"batch-out/{number}.png.out")["Body"].read()
        assert "red" in json.loads(body).values()


def test_our_trainer_is_tuned_two_jobs_at_a_time(aws: Running, tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "data", splits=("train", "validation"), per_class=8)
    s3, sagemaker = aws.client("s3"), aws.client("sagemaker")
    for path in root.rglob("*.png"):
        s3.upload_file(str(path), "bucket", f"data/{path.relative_to(root)}")
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="search",
        HyperParameterTuningJobConfig={
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {
                "Type": "Maximize",
                "MetricName": "validation_accuracy",
            },
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    {"Name": "learning_rate", "MinValue": "0.001", "MaxValue": "0.01"}
                ]
            },
        },
        TrainingJobDefinition=_definition(),
    )
    found = _ended(sagemaker, "search")
    assert found["HyperParameterTuningJobStatus"] == "Completed", found
    assert found["ObjectiveStatusCounters"]["Succeeded"] == 2
    best = found["BestTrainingJob"]
    assert 0.001 <= float(best["TunedHyperParameters"]["learning_rate"]) <= 0.01
    key = f"out/{best['TrainingJobName']}/output/model.tar.gz"
    assert s3.head_object(Bucket="bucket", Key=key)["ContentLength"] > 0


def _definition() -> dict[str, Any]:
    channels = [
        {
            "ChannelName": split,
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": f"s3://bucket/data/{split}/",
                    "S3DataDistributionType": "FullyReplicated",
                }
            },
        }
        for split in ("train", "validation")
    ]
    return {
        "StaticHyperParameters": {
            "architecture": "mobilenet_v3_small",
            "weights": "none",
            "image_size": "32",
            "epochs": "1",
            "batch_size": "8",
        },
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": metric_definitions(),
        },
        "RoleArn": ROLE,
        "InputDataConfig": channels,
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": MACHINES,
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }


def _ended(sagemaker: Any, name: str) -> dict[str, Any]:
    end = time.monotonic() + 200
    while time.monotonic() < end:
        found = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        if found["HyperParameterTuningJobStatus"] not in ("InProgress", "Stopping"):
            return dict(found)
        time.sleep(0.5)
    raise AssertionError(found)
