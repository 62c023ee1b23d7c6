"""Endpoints of the rehearsal, as boto3 sees them."""

import base64
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.emulator.server import emulator
from tiny_images import CachedClients, lines_of, model_archive, write_tiny_image

pytestmark = pytest.mark.slow  # they start processes

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny:1"
ROLE = "arn:aws:iam::123456789012:role/Tiny"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CachedClients]:
    folder = tmp_path_factory.mktemp("endpoints")
    image = write_tiny_image(folder / "image")
    with emulator(
        folder / "aws", images={IMAGE: image}, startup_seconds=10, time_scale=1 / 600
    ) as running:
        clients = CachedClients(running)
        s3 = clients.client("s3")
        s3.create_bucket(Bucket="bucket")
        for name in ("one", "two"):
            s3.put_object(Bucket="bucket", Key=f"{name}.tar.gz", Body=model_archive(name))
            s3.put_object(Bucket="bucket", Key=f"many/{name}.tar.gz", Body=model_archive(name))
        s3.put_object(Bucket="bucket", Key="plain/model.txt", Body=b"plain")
        s3.put_object(Bucket="bucket", Key="broken.tar.gz", Body=b"no archive")
        yield clients


class Site:
    """What a test needs of one emulator, with names of its own."""

    def __init__(self, aws: CachedClients, *, prefix: str) -> None:
        self.sagemaker = aws.client("sagemaker")
        self.runtime = aws.client("sagemaker-runtime")
        self.aws = aws
        self.prefix = prefix
        self.name = f"{prefix}-endpoint"
        self._count = 0

    def model(self, data: str = "one", *, container: dict[str, Any] | None = None) -> str:
        """A model of one container; its name."""
        self._count += 1
        name = f"{self.prefix}-{self._count}"
        standard = {"Image": IMAGE, "ModelDataUrl": f"s3://bucket/{data}.tar.gz"}
        self.sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container or standard
        )
        return name

    def config(self, *variants: dict[str, Any], **more: Any) -> str:
        """An endpoint configuration; its name."""
        self._count += 1
        name = f"{self.prefix}-{self._count}"
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=list(variants), **more
        )
        return name

    def create(self, config: str, *, expected: str = "InService") -> dict[str, Any]:
        """An endpoint, once it has come up."""
        self.sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=config)
        return self.settled(expected)

    def update(self, config: str, **more: Any) -> None:
        self.sagemaker.update_endpoint(EndpointName=self.name, EndpointConfigName=config, **more)

    def settled(self, expected: str = "InService") -> dict[str, Any]:
        """Its description, once nothing is in progress."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            found = self.sagemaker.describe_endpoint(EndpointName=self.name)
            if found["EndpointStatus"] not in ("Creating", "Updating", "RollingBack"):
                assert found["EndpointStatus"] == expected, found
                return dict(found)
            time.sleep(0.03)
        raise AssertionError(found)

    def invoke(self, body: bytes = b"hello", **more: Any) -> bytes:
        answer = self.runtime.invoke_endpoint(EndpointName=self.name, Body=body, **more)
        return bytes(answer["Body"].read())


def variant(model: str, name: str = "AllTraffic", **more: Any) -> dict[str, Any]:
    standard = {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    return standard | more


@pytest.fixture
def site(aws: CachedClients) -> Iterator[Site]:
    names.append(len(names))
    site = Site(aws, prefix=f"e{len(names)}")
    yield site
    for row in site.sagemaker.list_endpoints(NameContains=site.prefix + "-")["Endpoints"]:
        if row["EndpointStatus"] not in ("Creating", "Updating", "Deleting"):
            site.sagemaker.delete_endpoint(EndpointName=row["EndpointName"])


names: list[int] = []


def error_of(call: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call()
    return dict(caught.value.response)


def processes_of(aws: CachedClients) -> list[Path]:
    return [path for path in (aws.state.settings.folder / "serving").iterdir() if path.is_dir()]


def test_an_endpoint_serves_the_model_of_its_archive(site: Site, aws: CachedClients) -> None:
    container = {
        "Image": IMAGE,
        "ModelDataUrl": "s3://bucket/one.tar.gz",
        "Environment": {"NAME": "my-"},
    }
    found = site.create(site.config(variant(site.model(container=container))))
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert found["ProductionVariants"][0]["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    answer = site.runtime.invoke_endpoint(
        EndpointName=site.name, Body=b"hello", ContentType="text/plain"
    )
    assert answer["Body"].read() == b"my-one:hello"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"] == "seen"
    assert answer["ContentType"] == "text/plain"


def test_a_model_of_loose_files_is_served(site: Site) -> None:
    source = {
        "S3Uri": "s3://bucket/plain/",
        "S3DataType": "S3Prefix",
        "CompressionType": "None",
    }
    container = {"Image": IMAGE, "ModelDataSource": {"S3DataSource": source}}
    site.create(site.config(variant(site.model(container=container))))
    assert site.invoke() == b"plain:hello"


def test_headers_reach_the_container(site: Site) -> None:
    site.create(site.config(variant(site.model())))
    seen = json.loads(
        site.invoke(
            b"headers", ContentType="image/png", Accept="text/csv", CustomAttributes="top_k=3"
        )
    )
    assert (seen["Content-Type"], seen["Accept"]) == ("image/png", "text/csv")
    assert seen["X-Amzn-SageMaker-Custom-Attributes"] == "top_k=3"


def test_refusals_of_the_container_are_model_errors(site: Site) -> None:
    site.create(site.config(variant(site.model())))
    answer = error_of(lambda: site.invoke(b"bad"))
    assert answer["Error"]["Code"] == "ModelError"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert answer["OriginalStatusCode"] == 400
    assert answer["OriginalMessage"] == "a bad request"
    assert error_of(lambda: site.invoke(b"boom"))["OriginalStatusCode"] == 503


def test_a_container_that_ends_is_started_again(site: Site) -> None:
    site.create(site.config(variant(site.model())))
    answer = error_of(lambda: site.invoke(b"exit"))
    assert answer["Error"]["Code"] == "ModelError"
    assert "could not get a response from the" in answer["OriginalMessage"]
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            assert site.invoke() == b"one:hello"
            return
        except ClientError:
            time.sleep(0.1)
    raise AssertionError("it did not come back")


def test_a_body_of_more_than_six_megabytes_is_refused(site: Site) -> None:
    site.create(site.config(variant(site.model())))
    answer = error_of(lambda: site.invoke(bytes(6291457)))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert "6291456" in answer["Error"]["Message"]


def test_an_unknown_endpoint_cannot_be_invoked(site: Site) -> None:
    answer = error_of(lambda: site.runtime.invoke_endpoint(EndpointName="nobody", Body=b""))
    assert answer["Error"]["Code"] == "ValidationError"
    assert "nobody" in answer["Error"]["Message"]


@pytest.mark.parametrize("how", ["DIE", "SICK"])
def test_a_container_that_does_not_come_up_fails_the_endpoint(how: str, aws: CachedClients) -> None:
    names.append(len(names))
    site = Site(aws, prefix=f"e{len(names)}")
    container = {"Image": IMAGE, "Environment": {how: "1"}}
    config = site.config(
        variant(
            site.model(container=container),
            ContainerStartupHealthCheckTimeoutInSeconds=60,
        )
    )
    state = aws.state
    patient = state.settings.startup_seconds
    object.__setattr__(state.settings, "startup_seconds", 1.0)
    try:
        found = site.create(config, expected="Failed")
    finally:
        object.__setattr__(state.settings, "startup_seconds", patient)
    assert "did not pass the ping health check" in found["FailureReason"]
    assert error_of(site.invoke)["Error"]["Code"] == "ValidationError"
    update = error_of(lambda: site.update(config))
    assert update["Error"]["Code"] == "ValidationException"
    site.sagemaker.delete_endpoint(EndpointName=site.name)


def test_an_archive_that_is_none_fails_the_endpoint(site: Site) -> None:
    found = site.create(site.config(variant(site.model("broken"))), expected="Failed")
    assert "Failed to extract model data archive" in found["FailureReason"]


def test_a_model_without_its_data_is_refused(site: Site) -> None:
    answer = error_of(lambda: site.model("missing"))
    assert answer["Error"]["Code"] == "ValidationException"
    assert "Could not access model data at s3://bucket/missing.tar.gz" in answer["Error"]["Message"]


def test_variants_get_requests_by_weight_or_by_name(site: Site) -> None:
    site.create(
        site.config(
            variant(site.model("one"), "a", InitialVariantWeight=3),
            variant(site.model("two"), "b", InitialVariantWeight=1),
        )
    )
    assert site.invoke(TargetVariant="b") == b"two:hello"
    counts = Counter(site.invoke() for _ in range(80))
    assert counts[b"one:hello"] > counts[b"two:hello"] > 0
    site.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=site.name,
        DesiredWeightsAndCapacities=[
            {"VariantName": "a", "DesiredWeight": 0},
            {"VariantName": "b", "DesiredInstanceCount": 4},
        ],
    )
    described = {each["VariantName"]: each for each in site.settled()["ProductionVariants"]}
    assert described["a"]["CurrentWeight"] == 0
    assert described["b"]["CurrentInstanceCount"] == 4
    assert {site.invoke() for _ in range(10)} == {b"two:hello"}
    assert error_of(lambda: site.invoke(TargetVariant="c"))["Error"]["Code"] == "ValidationError"


def test_several_containers_are_chained_or_chosen(site: Site) -> None:
    containers = [
        {"Image": IMAGE, "ContainerHostname": each, "Environment": {"NAME": each}}
        for each in ("first", "second")
    ]
    for mode, wanted in (("Serial", b"second:first:hello"), ("Direct", b"second:hello")):
        model = f"{site.prefix}-{mode}"
        site.sagemaker.create_model(
            ModelName=model,
            ExecutionRoleArn=ROLE,
            Containers=containers,
            InferenceExecutionConfig={"Mode": mode},
        )
        site.name = f"{site.prefix}-{mode}"
        site.create(site.config(variant(model)))
        target = {"TargetContainerHostname": "second"} if mode == "Direct" else {}
        assert site.invoke(**target) == wanted
        ended = error_of(lambda target=target: site.invoke(b"exit", **target))
        who = target.get("TargetContainerHostname", "first")
        assert f"Received server error (0) from {who} with" in ended["Error"]["Message"]
    assert error_of(site.invoke)["Error"]["Code"] == "ValidationError"


def test_a_serverless_endpoint_serves_and_takes_four_megabytes(site: Site) -> None:
    serverless = {
        "VariantName": "AllTraffic",
        "ModelName": site.model(),
        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5},
    }
    found = site.create(site.config(serverless))
    assert found["ProductionVariants"][0]["CurrentServerlessConfig"]["MaxConcurrency"] == 5
    assert site.invoke() == b"one:hello"
    answer = error_of(lambda: site.invoke(bytes(5 * 2**20)))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_many_models_are_loaded_when_they_are_asked_for(site: Site) -> None:
    container = {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": "s3://bucket/many/"}
    site.create(site.config(variant(site.model(container=container))))
    for name in ("one", "two", "one"):
        assert site.invoke(TargetModel=f"{name}.tar.gz") == f"{name}:hello".encode()
    missing = error_of(lambda: site.invoke(TargetModel="three.tar.gz"))
    assert missing["Error"]["Code"] == "ValidationError"
    assert "three.tar.gz" in missing["Error"]["Message"]
    assert "TargetModel" in error_of(site.invoke)["Error"]["Message"]


def test_a_container_without_memory_is_told_to_unload_the_oldest(site: Site) -> None:
    container = {
        "Image": IMAGE,
        "Mode": "MultiModel",
        "ModelDataUrl": "s3://bucket/many/",
        "Environment": {"MOST_MODELS": "1"},
    }
    site.create(site.config(variant(site.model(container=container))))
    for name in ("one", "two", "one", "one", "two"):
        assert site.invoke(TargetModel=f"{name}.tar.gz") == f"{name}:hello".encode()


@pytest.mark.parametrize("kind", ["serverless", "asynchronous"])
def test_several_models_are_behind_instances_that_answer_at_once_alone(
    kind: str, site: Site
) -> None:
    container = {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": "s3://bucket/many/"}
    model = site.model(container=container)
    output = {"OutputConfig": {"S3OutputPath": "s3://bucket/async"}}
    serverless = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    if kind == "serverless":
        one = {"VariantName": "AllTraffic", "ModelName": model, **serverless}
        refused = error_of(lambda: site.config(one))
    else:
        refused = error_of(lambda: site.config(variant(model), AsyncInferenceConfig=output))
    assert f"cannot be behind a{'n' if kind[0] == 'a' else ''} {kind}" in str(refused)


def test_a_new_fleet_takes_over_all_at_once(site: Site, aws: CachedClients) -> None:
    site.create(site.config(variant(site.model("one"))))
    config = site.config(variant(site.model("two")))
    before = processes_of(aws)
    site.update(config)
    found = site.settled()
    assert found["EndpointConfigName"] == config
    assert site.invoke() == b"two:hello"
    end = time.monotonic() + 10
    while len(processes_of(aws)) > len(before) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(processes_of(aws)) == len(before)


def test_no_request_fails_while_fleets_change(site: Site) -> None:
    site.create(site.config(variant(site.model("one"))))
    configs = [site.config(variant(site.model(data))) for data in ("two", "one")]
    answers: Counter[bytes] = Counter()
    for config in configs:
        site.update(config)
        while site.sagemaker.describe_endpoint(EndpointName=site.name)["EndpointStatus"] != (
            "InService"
        ):
            with ThreadPoolExecutor(4) as pool:
                answers.update(pool.map(lambda _: site.invoke(), range(8)))
    assert set(answers) <= {b"one:hello", b"two:hello"}
    assert sum(answers.values()) >= 16


def blue_green(kind: str, *, wait: int, **size: Any) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": wait, **size}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}


TENTH = {"Type": "CAPACITY_PERCENT", "Value": 10}
HALF = {"Type": "CAPACITY_PERCENT", "Value": 50}


@pytest.mark.parametrize(
    "deployment",
    [
        blue_green("CANARY", wait=300, CanarySize=HALF),
        blue_green("LINEAR", wait=300, LinearStepSize=HALF),
        {"RollingUpdatePolicy": {"MaximumBatchSize": HALF, "WaitIntervalInSeconds": 300}},
    ],
    ids=["canary", "linear", "rolling"],
)
def test_traffic_moves_in_stages(deployment: dict[str, Any], site: Site) -> None:
    site.create(site.config(variant(site.model("one"))))
    config = site.config(variant(site.model("two")))
    site.update(config, DeploymentConfig=deployment)
    seen: Counter[bytes] = Counter()
    pending = ""
    while (found := site.sagemaker.describe_endpoint(EndpointName=site.name))[
        "EndpointStatus"
    ] == "Updating":
        pending = found.get("PendingDeploymentSummary", {}).get("EndpointConfigName", pending)
        seen.update(site.invoke() for _ in range(10))
    assert pending == config
    assert seen[b"one:hello"] > 0
    assert seen[b"two:hello"] > 0
    assert found["EndpointConfigName"] == config
    assert found["LastDeploymentConfig"] == deployment
    assert {site.invoke() for _ in range(5)} == {b"two:hello"}


def test_an_alarm_rolls_the_update_back(site: Site, aws: CachedClients) -> None:
    old = site.config(variant(site.model("one")))
    site.create(old)
    dimensions = {"EndpointName": site.name, "VariantName": "AllTraffic"}
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName=f"{site.prefix}-5xx",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )
    broken = site.model(container={"Image": IMAGE, "Environment": {"BROKEN": "1"}})
    deployment = blue_green("CANARY", wait=3600, CanarySize=HALF) | {
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": f"{site.prefix}-5xx"}]}
    }
    site.update(site.config(variant(broken)), DeploymentConfig=deployment)
    errors = 0
    while (found := site.sagemaker.describe_endpoint(EndpointName=site.name))[
        "EndpointStatus"
    ] != "InService":
        try:
            site.invoke()
        except ClientError:
            errors += 1
    assert errors > 0
    assert found["EndpointConfigName"] == old
    assert f"{site.prefix}-5xx" in found["FailureReason"]
    assert {site.invoke() for _ in range(10)} == {b"one:hello"}


def test_a_fleet_that_does_not_come_up_leaves_the_old_one_serving(site: Site) -> None:
    old = site.config(variant(site.model("one")))
    site.create(old)
    dying = site.model(container={"Image": IMAGE, "Environment": {"DIE": "1"}})
    site.update(site.config(variant(dying)))
    found = site.settled()
    assert found["EndpointConfigName"] == old
    assert "ping health check" in found["FailureReason"]
    assert site.invoke() == b"one:hello"


def test_an_update_needs_the_alarms_and_both_configurations(site: Site) -> None:
    old = site.config(variant(site.model("one")))
    site.create(old)
    new = site.config(variant(site.model("two")))
    rollback = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "nobody"}]}}
    deployment = blue_green("ALL_AT_ONCE", wait=0) | rollback
    assert "nobody" in str(error_of(lambda: site.update(new, DeploymentConfig=deployment)))
    site.sagemaker.delete_endpoint_config(EndpointConfigName=old)
    assert "Could not find endpoint configuration" in str(error_of(lambda: site.update(new)))


def test_weights_and_counts_are_retained_on_request(site: Site) -> None:
    site.create(site.config(variant(site.model("one"))))
    site.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=site.name,
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 7}],
    )
    site.update(site.config(variant(site.model("two"))), RetainAllVariantProperties=True)
    assert site.settled()["ProductionVariants"][0]["DesiredInstanceCount"] == 7


def test_what_is_captured_lies_where_sagemaker_puts_it(site: Site, aws: CachedClients) -> None:
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://bucket/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }
    found = site.create(site.config(variant(site.model()), DataCaptureConfig=capture))
    assert found["DataCaptureConfig"]["CaptureStatus"] == "Started"
    site.invoke(b"\xff\x00picture", ContentType="image/png", InferenceId="mine")
    s3 = aws.client("s3")
    prefix = f"capture/{site.name}/AllTraffic/{time.strftime('%Y/%m/%d', time.gmtime())}/"
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket="bucket", Prefix=prefix)["Contents"]]
    objects = [s3.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys]
    (line,) = lines_of(objects)
    captured = dict(line)["captureData"]
    assert base64.b64decode(captured["endpointInput"]["data"]) == b"\xff\x00picture"
    assert captured["endpointInput"]["observedContentType"] == "image/png"
    assert captured["endpointOutput"]["encoding"] == "BASE64"
    assert line["eventMetadata"]["inferenceId"] == "mine"
    assert keys[0].endswith(".jsonl")


def test_invocations_are_measured(site: Site, aws: CachedClients) -> None:
    site.create(site.config(variant(site.model())))
    site.invoke()
    error_of(lambda: site.invoke(b"bad"))
    cloudwatch = aws.client("cloudwatch")
    wanted = {"Invocations": 2, "Invocation4XXErrors": 1, "Invocation5XXErrors": 0}
    dimensions = {"EndpointName": site.name, "VariantName": "AllTraffic"}

    def total(metric: str) -> float:
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=metric,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=time.time() - 3600,
            EndTime=time.time() + 60,
            Period=86400,
            Statistics=["Sum"],
        )["Datapoints"]
        return float(sum(point["Sum"] for point in points))

    end = time.monotonic() + 5
    while time.monotonic() < end and total("Invocations") < 2:
        time.sleep(0.05)
    assert {metric: total(metric) for metric in wanted} == wanted
    assert total("ModelLatency") > 0


def test_what_the_container_prints_is_in_cloudwatch(site: Site, aws: CachedClients) -> None:
    site.create(site.config(variant(site.model())))
    site.invoke()
    logs = aws.client("logs")
    end = time.monotonic() + 5
    lines: list[str] = []
    while time.monotonic() < end and not any("answering" in line for line in lines):
        time.sleep(0.1)
        try:
            events = logs.filter_log_events(logGroupName=f"/aws/sagemaker/Endpoints/{site.name}")
        except logs.exceptions.ResourceNotFoundException:
            continue
        lines = [event["message"] for event in events["events"]]
    assert any("answering b'hello'" in line for line in lines)


def test_an_asynchronous_invocation_answers_in_s3(site: Site, aws: CachedClients) -> None:
    output = {"S3OutputPath": "s3://bucket/async", "S3FailurePath": "s3://bucket/failed"}
    config = site.config(variant(site.model()), AsyncInferenceConfig={"OutputConfig": output})
    site.create(config)
    s3 = aws.client("s3")
    s3.put_object(Bucket="bucket", Key="inputs/a", Body=b"hello")
    ticket = site.runtime.invoke_endpoint_async(
        EndpointName=site.name, InputLocation="s3://bucket/inputs/a"
    )
    key = ticket["OutputLocation"].removeprefix("s3://bucket/")
    waiter = s3.get_waiter("object_exists")
    waiter.wait(Bucket="bucket", Key=key, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == b"one:hello"
    assert "InvokeEndpointAsync" in error_of(site.invoke)["Error"]["Message"]


def test_deleting_an_endpoint_ends_its_processes(site: Site, aws: CachedClients) -> None:
    site.create(site.config(variant(site.model())))
    container = aws.state.processes._running[-1]
    site.sagemaker.delete_endpoint(EndpointName=site.name)
    site.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=site.name, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
    )
    assert container.exit_code is not None
    assert container not in aws.state.processes._running


def test_an_endpoint_in_progress_can_be_neither_changed_nor_deleted(site: Site) -> None:
    config = site.config(variant(site.model()))
    site.sagemaker.create_endpoint(EndpointName=site.name, EndpointConfigName=config)
    for call in (
        lambda: site.sagemaker.delete_endpoint(EndpointName=site.name),
        lambda: site.update(config),
    ):
        assert "in-progress" in error_of(call)["Error"]["Message"]
    site.settled()


def test_names_are_used_once_and_descriptions_leave_out_what_was_not_said(site: Site) -> None:
    model = site.model()
    config = site.config(variant(model))
    site.create(config)
    assert "DataCaptureConfig" not in site.sagemaker.describe_endpoint_config(
        EndpointConfigName=config
    )
    again = error_of(
        lambda: site.sagemaker.create_endpoint(EndpointName=site.name, EndpointConfigName=config)
    )
    assert "already existing endpoint" in again["Error"]["Message"]
    assert site.sagemaker.describe_model(ModelName=model)["PrimaryContainer"]["Image"] == IMAGE
    site.sagemaker.delete_model(ModelName=model)
    assert "Could not find model" in str(
        error_of(lambda: site.sagemaker.describe_model(ModelName=model))
    )


def set_fault(aws: CachedClients, **content: Any) -> None:
    from rehearsal.emulator.faults import parse_fault

    aws.state.faults.add(parse_fault(content))


def test_a_stuck_endpoint_stays_creating_and_fails_in_the_end(
    site: Site, aws: CachedClients
) -> None:
    set_fault(aws, name="stuck_endpoint", endpoints=site.name)
    config = site.config(variant(site.model()))
    site.sagemaker.create_endpoint(EndpointName=site.name, EndpointConfigName=config)
    time.sleep(0.5)
    assert site.sagemaker.describe_endpoint(EndpointName=site.name)["EndpointStatus"] == "Creating"
    aws.state.faults.clear()
    assert "ping health check" in site.settled("Failed")["FailureReason"]


def test_a_hanging_endpoint_answers_late(site: Site, aws: CachedClients) -> None:
    site.create(site.config(variant(site.model())))
    set_fault(aws, name="hanging_endpoint", endpoints=site.name, seconds=0.7, times=1)
    begin = time.monotonic()
    assert site.invoke() == b"one:hello"
    assert time.monotonic() - begin > 0.7


def test_the_report_knows_endpoints_that_are_gone(site: Site, aws: CachedClients) -> None:
    from rehearsal.emulator.records import records

    config = site.config(variant(site.model(), InstanceType="ml.c5.xlarge"))
    site.create(config)
    site.sagemaker.delete_endpoint(EndpointName=site.name)
    end = time.monotonic() + 10
    status = ""
    while status != "Deleted" and time.monotonic() < end:
        time.sleep(0.05)
        rows = [row for row in records(aws.state).resources if row.name == site.name]
        status = rows[0].status
    assert [row.kind for row in rows] == ["endpoint"]
    assert (rows[0].instance_type, rows[0].details["config"]) == ("ml.c5.xlarge", config)
    assert rows[0].executed_seconds > 0
