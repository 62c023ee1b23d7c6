"""No way leads past the emulator's checks into what would only pretend."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulated import BUCKET, ROLE
from rehearsal.emulator.server import Running, emulator

pytestmark = pytest.mark.slow

_PENDING = "NotExecutedInRehearsal"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with emulator(tmp_path_factory.mktemp("ways")) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


def refused(call: Callable[..., Any], **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    assert caught.value.response["Error"]["Code"] == _PENDING
    return str(caught.value)


def template(resource: Mapping[str, Any]) -> str:
    return json.dumps({"Resources": {"One": resource}})


def test_a_stack_creates_nothing(running: Running) -> None:
    model = {"PrimaryContainer": {"Image": "image"}, "ExecutionRoleArn": ROLE}
    stacks = running.client("cloudformation")
    body = template({"Type": "AWS::SageMaker::Model", "Properties": model})
    assert "cloudformation" in refused(stacks.create_stack, StackName="one", TemplateBody=body)
    refused(stacks.create_change_set, StackName="one", ChangeSetName="one", TemplateBody=body)
    refused(stacks.create_stack_set, StackSetName="one", TemplateBody=body)
    assert running.client("sagemaker").list_models()["Models"] == []


def test_a_template_does_not_run_in_the_emulator(running: Running, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    body = f"Resources: !!python/object/apply:os.mkdir ['{proof}']"
    stacks = running.client("cloudformation")
    refused(stacks.create_stack, StackName="one", TemplateBody=body)
    refused(stacks.validate_template, TemplateBody=body)
    assert not proof.exists()


def test_services_that_would_pretend_to_run_something_are_refused(running: Running) -> None:
    definition = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}})
    machines = running.client("stepfunctions")
    refused(machines.create_state_machine, name="a", definition=definition, roleArn=ROLE)
    refused(running.client("codebuild").start_build, projectName="a")
    refused(running.client("glue").start_job_run, JobName="a")
    refused(running.client("batch").list_jobs, jobQueue="a")
    refused(running.client("lambda").list_functions)
    refused(running.client("rekognition").start_text_detection, Video={"S3Object": {}})
    refused(running.client("ec2").run_instances, MinCount=1, MaxCount=1)
    command = {"DocumentName": "AWS-RunShellScript", "InstanceIds": ["i-0123456789"]}
    refused(running.client("ssm").send_command, **command)


def test_nothing_is_sent_to_addresses_that_a_job_names(running: Running) -> None:
    sns = running.client("sns")
    topic = sns.create_topic(Name="a")["TopicArn"]
    address = "http://169.254.169.254/latest"
    refused(sns.subscribe, TopicArn=topic, Protocol="http", Endpoint=address)
    refused(sns.publish, TopicArn=topic, Message="a")


@pytest.mark.parametrize("operation", ["create_domain", "create_feature_group"])
def test_what_is_said_to_be_ready_and_is_not_there_is_refused(
    running: Running, operation: str
) -> None:
    sagemaker = running.client("sagemaker")
    requests = {
        "create_domain": {
            "DomainName": "a",
            "AuthMode": "IAM",
            "DefaultUserSettings": {"ExecutionRole": ROLE},
        },
        "create_feature_group": {
            "FeatureGroupName": "a",
            "RecordIdentifierFeatureName": "a",
            "EventTimeFeatureName": "b",
            "FeatureDefinitions": [{"FeatureName": "a", "FeatureType": "String"}],
        },
    }
    refused(getattr(sagemaker, operation), **requests[operation])


def test_what_moto_lacks_is_refused_in_the_services_own_words(running: Running) -> None:
    simulate = running.client("iam").simulate_principal_policy
    refused(simulate, PolicySourceArn=ROLE, ActionNames=["s3:GetObject"])
    refused(running.client("sagemaker").update_experiment, ExperimentName="a")


def _signed(service: str) -> str:
    scope = f"AKIAREHEARSALUSER000/20300101/us-east-1/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"


MODEL = {"ModelName": "behind", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": "image"}}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {"Authorization": _signed("sagemaker"), "X-Amz-Target": "sagemaker.CreateModel"}),
        ("/", {"Authorization": _signed("sagemaker"), "X-Amz-Target": "X.CreateModel"}),
        ("/?Action=CreateModel", {"Authorization": _signed("sagemaker")}),
        ("/", {"Authorization": _signed("SageMaker"), "X-Amz-Target": "X.CreateModel"}),
        (
            "/endpoints/none/invocations/invocations",
            {"Authorization": _signed("sagemaker"), "X-Amz-Target": "X.Y"},
        ),
        ("/BatchPutMetrics", {"Authorization": _signed("sagemaker")}),
        ("/moto-api/reset", {}),
        ("/moto-api/static/sagemaker/endpoint-results", {}),
        ("/latest/meta-data/", {}),
    ],
)
def test_no_other_address_or_header_reaches_motos_sagemaker(
    running: Running, path: str, headers: dict[str, str]
) -> None:
    request = urllib.request.Request(
        running.url + path,
        data=json.dumps(MODEL).encode(),
        headers={"Content-Type": "application/x-amz-json-1.1", **headers},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    assert caught.value.code == 400
    assert _PENDING in caught.value.read().decode()
    assert [b["Name"] for b in running.client("s3").list_buckets()["Buckets"]] == [BUCKET]
