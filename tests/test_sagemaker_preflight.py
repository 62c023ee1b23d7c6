"""What is known of an account before a run costs anything; each mistake with its sentence."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from botocore.stub import Stubber
from moto import mock_aws

from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.preflight import Finding, check_account
from darkroom.backends.sagemaker.preflight.account import Caller, check_region
from darkroom.backends.sagemaker.preflight.bucket import check_bucket
from darkroom.backends.sagemaker.preflight.demand import demands_of
from darkroom.backends.sagemaker.preflight.findings import survive
from darkroom.backends.sagemaker.preflight.image import check_image
from darkroom.backends.sagemaker.preflight.instances import check_instance_types
from darkroom.backends.sagemaker.preflight.managed_mlflow import check_managed_mlflow
from darkroom.backends.sagemaker.preflight.permissions import check_execution_role
from darkroom.backends.sagemaker.preflight.quotas import check_quotas
from darkroom.backends.sagemaker.preflight.requests import check_requests
from darkroom.backends.sagemaker.preflight.roles import check_passing, check_role
from darkroom.backends.sagemaker.preflight.servers import (
    ask_mlflow,
    ask_zenml,
    check_mlflow_url,
    check_zenml,
)
from darkroom.backends.sagemaker.preflight.service_model import model_problems
from darkroom.backends.sagemaker.site import Site
from darkroom.config import Config

TEMPLATE = Path(__file__).resolve().parent.parent / "infrastructure" / "darkroom.yaml"
REGION, ACCOUNT = "eu-west-1", "123456789012"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/darkroom-execution"
CALLER = Caller(account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:user/ann")


def config_with(**sagemaker: object) -> Config:
    return Config.model_validate({"sagemaker": sagemaker})


def site(**changes: str) -> Site:
    values = {"role": ROLE, "image": f"{REGISTRY}/darkroom", "root": "s3://photos/darkroom"}
    return Site(region=REGION, **{**values, **changes})


def problem(found: list[Finding]) -> str:
    """The text of the only problem."""
    (text,) = [finding.text for finding in found if finding.level == "problem"]
    return text


def levels(found: list[Finding]) -> list[str]:
    return [finding.level for finding in found]


@pytest.fixture(autouse=True)
def credentials(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


class Simulator:
    """IAM's policy simulator, which moto lacks: all is allowed, except some actions."""

    def __init__(self, *, denied: tuple[str, ...] = (), iam: object = None) -> None:
        self.denied = denied
        self.iam = iam

    def __getattr__(self, name: str) -> object:
        return getattr(self.iam, name)

    def simulate_principal_policy(self, *, ActionNames, **_request) -> dict:  # noqa: N803
        return {
            "EvaluationResults": [
                {
                    "EvalActionName": name,
                    "EvalDecision": "implicitDeny" if name in self.denied else "allowed",
                }
                for name in ActionNames
            ]
        }


class Account(Clients):
    """An account in memory, with nothing in it."""

    @property
    def iam(self) -> Simulator:
        return Simulator(iam=super().iam)

    @property
    def quotas(self) -> object:
        client = boto3.client("service-quotas", region_name=REGION)
        self.stubber = Stubber(client)
        self.stubber.activate()
        records = [quota(name, value) for name, value in ENOUGH.items()]
        self.stubber.add_response("list_service_quotas", {"Quotas": records})
        return client


@pytest.fixture
def account() -> Iterator[Account]:
    with mock_aws():
        yield Account(REGION)


@pytest.fixture
def stubbed() -> Callable[..., tuple]:
    """A client of a service, and what it is going to answer."""

    def make(service: str) -> tuple:
        client = boto3.client(service, region_name=REGION)
        stubber = Stubber(client)
        stubber.activate()
        return client, stubber

    return make


def create_role(
    account: Clients, *, service: str = "sagemaker.amazonaws.com", path: str = "/"
) -> str:
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        ],
    }
    role = account.iam.create_role(
        RoleName="darkroom-execution", Path=path, AssumeRolePolicyDocument=json.dumps(trust)
    )
    return role["Role"]["Arn"]


def create_bucket(account: Clients, *, region: str = REGION) -> None:
    Clients(region).s3.create_bucket(
        Bucket="photos", CreateBucketConfiguration={"LocationConstraint": region}
    )
    blocked = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    account.s3.put_public_access_block(Bucket="photos", PublicAccessBlockConfiguration=blocked)


# Region and instance types


def test_a_region_with_sagemaker_is_fine() -> None:
    assert levels(check_region("eu-west-1")) == ["ok"]


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        ("", "no region is set. Set AWS_REGION"),
        ("europe", "'europe' is no region that has SageMaker. Set AWS_REGION to one such as"),
        (
            "eu-west-9",
            "'eu-west-9' is no region that has SageMaker. Set AWS_REGION to eu-central-1",
        ),
    ],
)
def test_a_wrong_region_is_named(region: str, sentence: str) -> None:
    assert sentence in problem(check_region(region))


def test_an_unknown_instance_type_is_named_with_its_setting_and_the_nearest() -> None:
    config = config_with(training={"instance_type": "ml.m5.xxlarge"})
    text = problem(check_instance_types(demands_of(config)))
    assert text.startswith("sagemaker.training.instance_type: 'ml.m5.xxlarge' is no instance type")
    assert "'ml.m5.xlarge'" in text


def test_an_instance_type_of_another_use_is_refused() -> None:
    config = config_with(training={"instance_type": "ml.c5.large"})
    assert "no instance type for a training job" in problem(
        check_instance_types(demands_of(config))
    )


# Roles


def test_a_role_that_sagemaker_may_assume_is_fine(account: Clients) -> None:
    arn = create_role(account)
    found = check_role(arn, subject="execution role", caller=CALLER, iam=account.iam)
    assert found[0] == Finding(
        "execution role", "ok", "darkroom-execution exists, and SageMaker may assume it."
    )


def test_a_role_in_a_path_is_found(account: Clients) -> None:
    arn = create_role(account, path="/teams/photo/")
    found = check_role(arn, subject="execution role", caller=CALLER, iam=account.iam)
    assert found[0].level == "ok"


def test_a_missing_role_says_how_to_get_one(account: Clients) -> None:
    found = check_role(ROLE, subject="execution role", caller=CALLER, iam=account.iam)
    assert problem(found) == (
        "the role 'darkroom-execution' does not exist. Deploy infrastructure/darkroom.yaml."
    )


def test_a_role_that_sagemaker_may_not_assume_is_named(account: Clients) -> None:
    arn = create_role(account, service="ec2.amazonaws.com")
    found = check_role(arn, subject="execution role", caller=CALLER, iam=account.iam)
    assert "SageMaker may not assume 'darkroom-execution'" in problem(found)
    assert "sagemaker.amazonaws.com" in problem(found)


def test_a_role_of_another_account_is_named(account: Clients) -> None:
    arn = "arn:aws:iam::999999999999:role/darkroom"
    found = check_role(arn, subject="execution role", caller=CALLER, iam=account.iam)
    assert "belongs to another account than the credentials (123456789012)" in problem(found)


def test_what_is_no_role_is_named(account: Clients) -> None:
    found = check_role("darkroom", subject="endpoint role", caller=CALLER, iam=account.iam)
    assert "'darkroom' is no role's ARN" in problem(found)


def test_a_caller_who_may_not_look_at_roles_gets_a_note(stubbed) -> None:
    iam, stubber = stubbed("iam")
    stubber.add_client_error("get_role", "AccessDenied", "no")
    stubber.add_client_error("simulate_principal_policy", "AccessDenied", "no")
    found = check_role(ROLE, subject="execution role", caller=CALLER, iam=iam)
    found += check_passing(ROLE, subject="execution role", caller=CALLER, iam=iam)
    assert levels(found) == ["note", "note"]
    assert "may not call iam:GetRole" in found[0].text


def decisions(**by_action: str) -> dict:
    results = [
        {"EvalActionName": name.replace("_", ":"), "EvalDecision": decision}
        for name, decision in by_action.items()
    ]
    return {"EvaluationResults": results}


def test_a_caller_who_may_not_pass_the_role_is_told_which_permission_lacks(stubbed) -> None:
    iam, stubber = stubbed("iam")
    stubber.add_response("simulate_principal_policy", decisions(iam_PassRole="implicitDeny"))
    text = problem(check_passing(ROLE, subject="execution role", caller=CALLER, iam=iam))
    assert text == (
        f"{CALLER.arn!r} may not pass {ROLE!r} to SageMaker: allow it iam:PassRole on that role "
        "(infrastructure/iam/client.json)."
    )


def test_a_session_of_a_role_is_asked_about_as_that_role(stubbed) -> None:
    iam, stubber = stubbed("iam")
    session = Caller(account=ACCOUNT, arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/dev/ann")
    request = {
        "PolicySourceArn": f"arn:aws:iam::{ACCOUNT}:role/dev",
        "ActionNames": ["iam:PassRole"],
        "ResourceArns": [ROLE],
        "ContextEntries": [
            {
                "ContextKeyName": "iam:PassedToService",
                "ContextKeyValues": ["sagemaker.amazonaws.com"],
                "ContextKeyType": "string",
            }
        ],
    }
    stubber.add_response("simulate_principal_policy", decisions(iam_PassRole="allowed"), request)
    assert levels(check_passing(ROLE, subject="role", caller=session, iam=iam)) == ["ok"]


def test_the_root_user_needs_no_permission(stubbed) -> None:
    iam, _ = stubbed("iam")
    root = Caller(account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:root")
    assert check_passing(ROLE, subject="role", caller=root, iam=iam) == []


def test_an_execution_role_that_lacks_permissions_hears_of_all_of_them() -> None:
    iam = Simulator(denied=("s3:PutObject", "sagemaker:CreateEndpoint"))
    text = problem(check_execution_role(site(), caller=CALLER, iam=iam))
    assert "s3:PutObject on arn:aws:s3:::photos/darkroom/probe" in text
    assert f"sagemaker:CreateEndpoint on arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/" in text
    assert "infrastructure/iam/execution-role.json" in text


def test_an_execution_role_that_may_everything_is_fine() -> None:
    assert levels(check_execution_role(site(), caller=CALLER, iam=Simulator())) == ["ok"]


# Bucket


def test_a_bucket_in_the_region_is_fine(account: Clients) -> None:
    create_bucket(account)
    found = check_bucket("s3://photos/darkroom", region=REGION, s3=account.s3)
    assert found == [Finding("bucket", "ok", "photos is reachable, in eu-west-1.")]


def test_a_missing_bucket_says_what_to_do(account: Clients) -> None:
    text = problem(check_bucket("s3://photos/darkroom", region=REGION, s3=account.s3))
    assert text.startswith("the bucket 'photos' does not exist.")
    assert "DARKROOM_S3_ROOT" in text


def test_a_bucket_of_another_region_is_named_with_both(account: Clients) -> None:
    create_bucket(account, region="us-west-2")
    text = problem(check_bucket("s3://photos/darkroom", region=REGION, s3=account.s3))
    assert "bucket 'photos' lies in us-west-2, the jobs would run in eu-west-1" in text


@pytest.mark.parametrize("code", ["403", "301"])
def test_a_bucket_that_may_not_be_accessed_or_was_moved_is_named(stubbed, code: str) -> None:
    s3, stubber = stubbed("s3")
    headers = {"HTTPHeaders": {"x-amz-bucket-region": "us-east-2"}}
    stubber.add_client_error("head_bucket", code, http_status_code=int(code), response_meta=headers)
    text = problem(check_bucket("s3://photos", region=REGION, s3=s3))
    assert ("may not be accessed" if code == "403" else "lies in us-east-2") in text


def test_what_is_no_place_on_s3_is_named(account: Clients) -> None:
    text = problem(check_bucket("photos", region=REGION, s3=account.s3))
    assert text == "'photos' is no place on S3. Write DARKROOM_S3_ROOT as s3://bucket/prefix."


def test_an_open_or_versioned_bucket_is_a_note(account: Clients) -> None:
    create_bucket(account)
    account.s3.delete_public_access_block(Bucket="photos")
    account.s3.put_bucket_versioning(Bucket="photos", VersioningConfiguration={"Status": "Enabled"})
    found = check_bucket("s3://photos/darkroom", region=REGION, s3=account.s3)
    assert levels(found) == ["ok", "note", "note"]
    assert "does not block all public access" in found[1].text
    assert "keeps old versions" in found[2].text


# Image


def test_a_repository_is_enough_where_the_run_builds_the_image(account: Clients) -> None:
    account.ecr.create_repository(repositoryName="darkroom")
    found = check_image(f"{REGISTRY}/darkroom", region=REGION, ecr=account.ecr)
    assert found == [Finding("image", "ok", "the repository darkroom exists.")]


def test_a_missing_repository_says_how_to_create_it(account: Clients) -> None:
    text = problem(check_image(f"{REGISTRY}/darkroom:1", region=REGION, ecr=account.ecr))
    assert "the repository 'darkroom' does not exist" in text
    assert "aws ecr create-repository --region eu-west-1 --repository-name darkroom" in text


def test_a_missing_image_says_how_to_build_it(account: Clients) -> None:
    account.ecr.create_repository(repositoryName="darkroom")
    text = problem(check_image(f"{REGISTRY}/darkroom:1", region=REGION, ecr=account.ecr))
    assert f"there is no image '{REGISTRY}/darkroom:1'" in text
    assert "make image" in text


def test_an_image_is_found_by_tag_and_by_digest(account: Clients) -> None:
    account.ecr.create_repository(repositoryName="darkroom")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    content = {"schemaVersion": 2, "mediaType": kind, "config": {"size": 3}, "layers": []}
    manifest = json.dumps(content)
    pushed = account.ecr.put_image(repositoryName="darkroom", imageManifest=manifest, imageTag="1")
    digest = pushed["image"]["imageId"]["imageDigest"]
    for uri in (f"{REGISTRY}/darkroom:1", f"{REGISTRY}/darkroom@{digest}"):
        assert levels(check_image(uri, region=REGION, ecr=account.ecr)) == ["ok", "ok"]


def test_an_image_of_another_region_is_named(account: Clients) -> None:
    uri = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/darkroom:1"
    text = problem(check_image(uri, region=REGION, ecr=account.ecr))
    assert "lies in us-east-1, the jobs would run in eu-west-1" in text


@pytest.mark.parametrize("uri", ["docker.io/darkroom:1", "darkroom", f"{REGISTRY}/UPPER:1"])
def test_an_image_outside_ecr_is_refused(account: Clients, uri: str) -> None:
    assert "is not in Amazon ECR" in problem(check_image(uri, region=REGION, ecr=account.ecr))


def test_an_image_that_is_too_large_for_serverless_is_named(stubbed) -> None:
    ecr, stubber = stubbed("ecr")
    uri = f"{REGISTRY}/darkroom:1"
    for _ in range(2):
        stubber.add_response("describe_repositories", {"repositories": []})
        stubber.add_response(
            "describe_images", {"imageDetails": [{"imageSizeInBytes": 11 * 10**9}]}
        )
    text = problem(check_image(uri, region=REGION, ecr=ecr, serverless=True))
    assert "11.0 GB compressed; serverless endpoints take at most 10 GB" in text
    assert levels(check_image(uri, region=REGION, ecr=ecr)) == ["ok", "ok"]


def test_an_image_whose_name_zenml_chooses_is_a_note(account: Clients) -> None:
    assert levels(check_image("", region=REGION, ecr=account.ecr)) == ["note"]


# Quotas


def quota(name: str, value: float) -> dict:
    return {
        "QuotaName": name,
        "Value": value,
        "QuotaCode": "L-611FA074",
        "ServiceCode": "sagemaker",
    }


def quotas_found(stubbed, quotas: dict[str, float], *, config: Config) -> list[Finding]:
    client, stubber = stubbed("service-quotas")
    records = [quota(name, value) for name, value in quotas.items()]
    half = len(records) // 2
    stubber.add_response("list_service_quotas", {"Quotas": records[:half], "NextToken": "more"})
    stubber.add_response(
        "list_service_quotas",
        {"Quotas": records[half:]},
        {"ServiceCode": "sagemaker", "NextToken": "more"},
    )
    return check_quotas(demands_of(config), region=REGION, client=client)


ENOUGH = {"ml.m5.xlarge for training job usage": 3, "ml.m5.large for endpoint usage": 1}


def test_quotas_that_are_large_enough_are_fine(stubbed) -> None:
    found = quotas_found(stubbed, ENOUGH, config=Config())
    assert levels(found) == ["ok"]
    assert "ml.m5.xlarge for training job usage: 3 of 3." in found[0].text


def test_the_orchestration_job_and_parallel_trials_share_a_quota(stubbed) -> None:
    config = config_with(tuning={"parallel_jobs": 4})
    text = problem(quotas_found(stubbed, ENOUGH, config=config))
    assert (
        "'ml.m5.xlarge for training job usage' is 3 in eu-west-1, the run wants 5 at once" in text
    )
    assert "--quota-code L-611FA074 --desired-value 5" in text


def test_a_quota_of_zero_is_a_problem_for_each_use(stubbed) -> None:
    config = config_with(
        training={"instance_type": "ml.g5.xlarge", "spot": True},
        hosting={"instance_type": "ml.g5.xlarge"},
    )
    quotas = {
        **ENOUGH,
        "ml.g5.xlarge for spot training job usage": 0,
        "ml.g5.xlarge for endpoint usage": 0,
    }
    found = quotas_found(stubbed, quotas, config=config)
    assert levels(found) == ["problem", "problem"]


def test_a_warm_pool_has_a_quota_of_its_own() -> None:
    config = config_with(training={"keep_alive_seconds": 600})
    names = [demand.quota_name for demand in demands_of(config)]
    assert "ml.m5.xlarge for training warm pool usage" in names


def test_a_quota_that_is_not_listed_is_a_note(stubbed) -> None:
    found = quotas_found(stubbed, {"ml.m5.large for endpoint usage": 1}, config=Config())
    assert levels(found) == ["note"]


def test_without_permission_quotas_are_a_note(stubbed) -> None:
    client, stubber = stubbed("service-quotas")
    stubber.add_client_error("list_service_quotas", "AccessDeniedException", "no")
    found = check_quotas(demands_of(Config()), region=REGION, client=client)
    assert levels(found) == ["note"]
    assert "servicequotas:ListServiceQuotas" in found[0].text


# Servers


@pytest.fixture
def server() -> Iterator[Callable[..., str]]:
    """Start a server on loopback that answers the same to everything; returns its address."""
    running = []

    def start(*, status: int = 200, body: str = "OK") -> str:
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_args: object) -> None:
                pass

        listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        running.append(listening)
        return f"http://127.0.0.1:{listening.server_port}"

    yield start
    for listening in running:
        listening.shutdown()
        listening.server_close()


def test_a_zenml_server_of_the_same_version_is_fine(server) -> None:
    url = server(body=json.dumps({"version": version("zenml")}))
    assert levels(ask_zenml(url)) == ["ok"]


def test_a_zenml_server_of_another_version_is_named(server) -> None:
    text = problem(ask_zenml(server(body='{"version": "0.1.0"}')))
    assert f"runs ZenML 0.1.0, here it is {version('zenml')}" in text


@pytest.mark.parametrize("body", ["<html>", "[]", "{}"])
def test_what_is_no_zenml_server_is_named(server, body: str) -> None:
    assert "answers, but not as a ZenML server" in problem(ask_zenml(server(body=body)))


def test_a_server_that_does_not_run_is_named(server) -> None:
    assert "does not answer: the connection fails" in problem(ask_zenml("http://127.0.0.1:9"))
    assert "does not answer: the connection fails" in problem(ask_mlflow("http://127.0.0.1:9"))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8237", "http://localhost:8237", "https://[::1]", "http://0.0.0.0:80"]
)
def test_a_server_on_loopback_cannot_be_reached_from_aws(url: str) -> None:
    assert "is this machine alone: jobs on AWS cannot reach it" in problem(check_zenml(url))
    assert "set DARKROOM_MLFLOW_URI to its address" in problem(check_mlflow_url(url))


@pytest.mark.parametrize("url", ["", "sqlite:///zenml.db", "zenml.example.com"])
def test_what_is_no_address_of_a_server_is_named(url: str) -> None:
    assert f"{url!r} is no address of a server. Set ZENML_STORE_URL" in problem(check_zenml(url))


@pytest.mark.parametrize("status", [200, 401, 403])
def test_an_mlflow_that_answers_or_asks_for_a_token_is_fine(server, status: int) -> None:
    assert levels(ask_mlflow(server(status=status))) == ["ok"]


def test_what_is_no_mlflow_is_named(server) -> None:
    assert "answers HTTP 404 to /health" in problem(ask_mlflow(server(status=404)))


# Managed MLflow

SERVER = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-tracking-server/ours"


@pytest.mark.parametrize("status", ["Created", "Stopped"])
def test_a_managed_mlflow_has_to_be_awake(stubbed, status: str) -> None:
    sagemaker, stubber = stubbed("sagemaker")
    answer = {"TrackingServerStatus": status}
    stubber.add_response("describe_mlflow_tracking_server", answer, {"TrackingServerName": "ours"})
    found = check_managed_mlflow(SERVER, region=REGION, sagemaker=sagemaker)
    assert levels(found) == ["ok" if status == "Created" else "problem"]


def test_a_managed_mlflow_app_is_asked_about_by_its_arn(stubbed) -> None:
    sagemaker, stubber = stubbed("sagemaker")
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-app/app-ABCDEFGHIJKL"
    stubber.add_response("describe_mlflow_app", {"Status": "Created"}, {"Arn": arn})
    assert levels(check_managed_mlflow(arn, region=REGION, sagemaker=sagemaker)) == ["ok"]


def test_a_missing_managed_mlflow_is_named(stubbed) -> None:
    sagemaker, stubber = stubbed("sagemaker")
    stubber.add_client_error("describe_mlflow_tracking_server", "ResourceNotFound", "none")
    text = problem(check_managed_mlflow(SERVER, region=REGION, sagemaker=sagemaker))
    assert text == f"{SERVER!r} does not exist. Create it, or fix DARKROOM_MLFLOW_URI."


@pytest.mark.parametrize(
    ("arn", "sentence"),
    [
        ("arn:aws:s3:::photos", "is no ARN of a managed MLflow"),
        (SERVER.replace(REGION, "us-east-1"), "lies in us-east-1, the jobs would run in eu-west-1"),
    ],
)
def test_a_wrong_arn_of_a_managed_mlflow_is_named(stubbed, arn: str, sentence: str) -> None:
    sagemaker, _ = stubbed("sagemaker")
    assert sentence in problem(check_managed_mlflow(arn, region=REGION, sagemaker=sagemaker))


# Requests


def test_the_requests_of_the_default_configuration_break_no_rule() -> None:
    assert levels(check_requests(site(), config=Config())) == ["ok"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kms_key": "key with spaces?" * 200}, "characters is more than 2048"),
        ({"tags": {"a": "x" * 300}}, "CreateTrainingJob"),
        ({"environment": {"LONG": "x" * 600}}, "600 characters is more than 512"),
        ({"tuning": {"warm_start_from": ["not a name"]}}, "'not a name' does not match"),
        (
            {"network": {"subnets": ["a/b"], "security_group_ids": ["sg-1"]}},
            "Subnets: 'a/b' does not match",
        ),
    ],
)
def test_what_aws_would_refuse_is_found_before_it_is_sent(settings: dict, sentence: str) -> None:
    config = config_with(**settings)
    found = check_requests(replace(site(), config=config.sagemaker), config=config)
    texts = [finding.text for finding in found if finding.level == "problem"]
    assert any(sentence in text for text in texts)
    assert all(text.startswith("AWS would refuse ") for text in texts)


def test_a_request_for_more_than_aws_allows_is_found() -> None:
    request = {"EndpointName": "-", "EndpointConfigName": "fine", "Colour": "red"}
    (unknown,) = model_problems(request, service="sagemaker", operation="CreateEndpoint")
    assert "Colour" in unknown
    del request["Colour"]
    (pattern,) = model_problems(request, service="sagemaker", operation="CreateEndpoint")
    assert "CreateEndpoint.EndpointName: '-' does not match" in pattern


# All together


def account_findings(account: Clients, **changes: str) -> list[Finding]:
    return check_account(
        site(**changes),
        config=Config(),
        zenml_url="http://localhost:8237",
        mlflow_uri="http://localhost:5000",
        clients=account,
    )


def test_all_problems_of_an_account_are_found_at_once(account: Clients) -> None:
    found = account_findings(account)
    problems = {finding.subject for finding in found if finding.level == "problem"}
    assert {"execution role", "bucket", "image", "ZenML server", "MLflow server"} <= problems
    assert found[0].subject == "credentials"
    assert found[0].level == "ok"


def test_an_account_in_order_has_no_problems_but_the_servers(account: Clients) -> None:
    create_role(account)
    create_bucket(account)
    account.ecr.create_repository(repositoryName="darkroom")
    found = account_findings(account)
    unfit = {finding.subject for finding in found if finding.level == "problem"}
    assert unfit == {"ZenML server", "MLflow server"}
    assert not any(finding.level == "note" for finding in found)


# moto makes neither bucket policies nor log groups from a template.
@pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")
def test_the_account_that_the_template_makes_is_in_order(account: Account) -> None:
    cloudformation = boto3.client("cloudformation", region_name=REGION)
    cloudformation.create_stack(
        StackName="darkroom",
        TemplateBody=TEMPLATE.read_text(),
        Parameters=[{"ParameterKey": "BucketName", "ParameterValue": "photos"}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    (stack,) = cloudformation.describe_stacks(StackName="darkroom")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    found = account_findings(
        account,
        role=outputs["RoleArn"],
        endpoint_role=outputs["EndpointRoleArn"],
        root=outputs["S3Root"],
        image=outputs["RepositoryUri"],
    )
    assert Finding(
        "endpoint role", "ok", "darkroom-endpoint exists, and SageMaker may assume it."
    ) in found  # fmt: skip
    problems = {finding.subject for finding in found if finding.level == "problem"}
    assert problems == {"ZenML server", "MLflow server"}


def test_an_answer_that_is_not_aws_is_said_so() -> None:
    def check() -> list[Finding]:
        raise ResponseParserError("<html>")

    (found,) = survive(check, subject="bucket", action="s3:ListBucket")
    assert found.level == "problem"
    assert "what answers is not AWS" in found.text


class Refused:
    """A client whose every call AWS refuses."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def refuse(**_request: object) -> None:
            answer = {"Error": {"Code": "ExpiredToken", "Message": "expired"}}
            raise ClientError(answer, name)

        return refuse


def test_without_good_credentials_the_rest_is_still_looked_at() -> None:
    clients = SimpleNamespace(sts=Refused())
    found = account_findings(clients)
    assert "AWS does not accept the credentials" in found[0].text
    assert "was not checked" in found[0].text
    subjects = [finding.subject for finding in found if finding.level == "problem"]
    assert subjects == ["credentials", "ZenML server", "MLflow server"]
