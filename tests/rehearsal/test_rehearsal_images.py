"""What stands for no image here is refused by name, wherever a request may name an image."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulated import BUCKET, IMAGES, ROLE, shell, training_request
from rehearsal.emulator.server import Running, emulator

pytestmark = pytest.mark.slow

STRANGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.3.0-cpu-py311"
MACHINE = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with emulator(tmp_path_factory.mktemp("images"), images=IMAGES) as running:
        s3 = running.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=b"")
        yield running


def train(sagemaker: Any) -> None:
    request = training_request("strange")
    request["AlgorithmSpecification"]["TrainingImage"] = STRANGE
    sagemaker.create_training_job(**request)


def train_a_script(sagemaker: Any) -> None:
    """As the SDK's PyTorch(entry_point=…) does: the image's own program is to run a script."""
    request = training_request("script", HyperParameters={"sagemaker_program": '"dogs.py"'})
    request["AlgorithmSpecification"] = {"TrainingImage": STRANGE, "TrainingInputMode": "File"}
    sagemaker.create_training_job(**request)


def tune(sagemaker: Any) -> None:
    request = training_request("unused")
    del request["TrainingJobName"]
    request["AlgorithmSpecification"] = {
        "TrainingImage": STRANGE,
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "score", "Regex": "score=(.*)"}],
    }
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="strange",
        HyperParameterTuningJobConfig={
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "score"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {"CategoricalParameterRanges": [{"Name": "x", "Values": ["1"]}]},
        },
        TrainingJobDefinition=request,
    )


def process(sagemaker: Any) -> None:
    sagemaker.create_processing_job(
        ProcessingJobName="strange",
        AppSpecification={"ImageUri": STRANGE, **shell("true")},
        ProcessingResources={"ClusterConfig": MACHINE},
        RoleArn=ROLE,
    )


def serve(sagemaker: Any) -> None:
    sagemaker.create_model(
        ModelName="strange",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": STRANGE, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"},
    )


def serve_several(sagemaker: Any) -> None:
    known = {"Image": "image", "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"}
    sagemaker.create_model(
        ModelName="strange",
        ExecutionRoleArn=ROLE,
        Containers=[known, {**known, "Image": STRANGE}],
    )


def serve_a_package(sagemaker: Any) -> None:
    package = sagemaker.create_model_package(
        ModelPackageName="strange",
        InferenceSpecification={
            "Containers": [{"Image": STRANGE, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"}],
            "SupportedContentTypes": ["image/png"],
            "SupportedResponseMIMETypes": ["application/json"],
            "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
            "SupportedTransformInstanceTypes": ["ml.m5.large"],
        },
    )["ModelPackageArn"]
    try:
        sagemaker.create_model(
            ModelName="strange",
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"ModelPackageName": package},
        )
    finally:
        sagemaker.delete_model_package(ModelPackageName=package)


def run_a_pipeline(sagemaker: Any) -> None:
    request = training_request("unused")
    del request["TrainingJobName"]
    request["AlgorithmSpecification"]["TrainingImage"] = {"Get": "Parameters.Image"}
    definition = {
        "Version": "2020-12-01",
        "Parameters": [{"Name": "Image", "Type": "String", "DefaultValue": STRANGE}],
        "Steps": [{"Name": "train", "Type": "Training", "Arguments": request}],
    }
    sagemaker.create_pipeline(
        PipelineName="strange",
        PipelineDefinition=json.dumps(definition),
        RoleArn=ROLE,
        ClientRequestToken="x" * 32,
    )
    sagemaker.start_pipeline_execution(PipelineName="strange")


@pytest.mark.parametrize(
    "call",
    [train, train_a_script, tune, process, serve, serve_several, serve_a_package, run_a_pipeline],
)
def test_an_image_that_nothing_stands_for_is_refused_and_told_how_to_be_mapped(
    running: Running, call: Callable[[Any], None]
) -> None:
    sagemaker = running.client("sagemaker")
    with pytest.raises(ClientError) as refused:
        call(sagemaker)
    error = refused.value.response["Error"]
    assert error["Code"] == "NotExecutedInRehearsal"
    assert repr(STRANGE) in error["Message"]
    assert f"--image {STRANGE}=FOLDER" in error["Message"]
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    assert sagemaker.list_models()["Models"] == []
