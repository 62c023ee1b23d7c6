"""What is left of endpoints when the emulator ends: nothing."""

import time
from pathlib import Path

import pytest

from rehearsal.emulator.server import emulator
from tiny_images import model_archive, write_tiny_image

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny:1"
ROLE = "arn:aws:iam::123456789012:role/Tiny"


@pytest.mark.slow
@pytest.mark.parametrize("sandboxed", [None, False])
def test_no_serving_process_outlives_the_emulator(sandboxed: bool | None, tmp_path: Path) -> None:
    image = write_tiny_image(tmp_path / "image")
    with emulator(tmp_path / "aws", images={IMAGE: image}, sandboxed=sandboxed) as running:
        s3, sagemaker = running.client("s3"), running.client("sagemaker")
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="one.tar.gz", Body=model_archive("one"))
        sagemaker.create_model(
            ModelName="one",
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": "s3://bucket/one.tar.gz"},
        )
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": "one",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        sagemaker.create_endpoint_config(EndpointConfigName="one", ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName="one", EndpointConfigName="one")
        sagemaker.get_waiter("endpoint_in_service").wait(
            EndpointName="one", WaiterConfig={"Delay": 1, "MaxAttempts": 20}
        )
        answer = running.client("sagemaker-runtime").invoke_endpoint(EndpointName="one", Body=b"a")
        assert answer["Body"].read() == b"one:a"
        (process,) = running.state.processes._running
    end = time.monotonic() + 10
    while process.exit_code is None and time.monotonic() < end:
        time.sleep(0.05)
    assert process.exit_code is not None
