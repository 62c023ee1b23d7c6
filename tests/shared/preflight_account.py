"""An account in memory to look at before a run, and what the tests of it share."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from darkroom.backends.sagemaker.account.findings import Caller
from darkroom.backends.sagemaker.account.preflight import Finding
from darkroom.backends.sagemaker.session import Clients, SageMakerContext
from darkroom.config import Config

REGION, ACCOUNT = "eu-west-1", "123456789012"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/darkroom-execution"
CALLER = Caller(account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:user/ann")


def config_with(**sagemaker: object) -> Config:
    return Config.model_validate({"sagemaker": sagemaker})


def site(**changes: str) -> SageMakerContext:
    values = {"role": ROLE, "image": f"{REGISTRY}/darkroom", "root": "s3://photos/darkroom"}
    return SageMakerContext(region=REGION, **{**values, **changes})


def problem(found: list[Finding]) -> str:
    """The text of the only problem."""
    (text,) = [finding.text for finding in found if finding.level == "problem"]
    return text


def levels(found: list[Finding]) -> list[str]:
    return [finding.level for finding in found]


ENOUGH = {"ml.m5.xlarge for training job usage": 3, "ml.m5.large for endpoint usage": 1}


def quota(name: str, value: float) -> dict:
    return {
        "QuotaName": name,
        "Value": value,
        "QuotaCode": "L-611FA074",
        "ServiceCode": "sagemaker",
    }


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


def stubbed(service: str) -> tuple[Any, Stubber]:
    """A client of a service, and what it is going to answer."""
    client = boto3.client(service, region_name=REGION)
    stubber = Stubber(client)
    stubber.activate()
    return client, stubber


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


def isolate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Credentials of nobody, and nothing of the user's AWS configuration."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
