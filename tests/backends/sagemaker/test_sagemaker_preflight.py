"""What is known of a whole account before a run costs anything."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from moto import mock_aws

from checkout import CHECKOUT
from darkroom.backends.sagemaker.account.findings import survive
from darkroom.backends.sagemaker.account.preflight import Finding, check_account
from darkroom.backends.sagemaker.session import Clients
from darkroom.config import Config
from preflight_account import REGION, Account, create_bucket, create_role, isolate, site

TEMPLATE = CHECKOUT / "infrastructure" / "darkroom.yaml"


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path) -> None:
    """Nothing of the user's AWS configuration is seen."""
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def account() -> Iterator[Account]:
    with mock_aws():
        yield Account(REGION)


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


@pytest.mark.slow
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
