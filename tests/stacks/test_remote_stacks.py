"""The stacks sagemaker and rehearsal: their values, and what is registered of them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import CHECKOUT
from darkroom.base.errors import UserError
from stacks.values import load_values

VALUES = {
    "AWS_REGION": "eu-west-1",
    "DARKROOM_ROLE_ARN": "arn:aws:iam::123456789012:role/darkroom",
    "DARKROOM_S3_ROOT": "s3://pictures/darkroom/",
    "DARKROOM_ECR_REGISTRY": "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    "DARKROOM_MLFLOW_URI": "https://mlflow.example.com",
    "DARKROOM_MLFLOW_TOKEN": "very-secret",
    "ZENML_STORE_URL": "https://zenml.example.com",
}
ARN = "arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/darkroom"

SCRIPT = """
import json, os, sqlite3
from stacks.environment import prepare_environment
prepare_environment()
from stacks.values import load_values
load_values("sagemaker")
# Registered in a local database: whether ZenML's server is remote shows only when a run starts.
for name in ("ZENML_STORE_URL", "ZENML_STORE_TYPE"):
    os.environ.pop(name)
os.environ["ZENML_CONFIG_PATH"] = os.environ["DARKROOM_HOME"] + "/zenml"
from stacks.loader import use_stack
use_stack("sagemaker")
use_stack("sagemaker")
from zenml.client import Client
stack = Client().active_stack
tracker = stack.experiment_tracker
print(json.dumps({
    "tracker": type(tracker).__name__,
    "uri": tracker.get_tracking_uri(),
    "token": tracker.config.tracking_token,
    "is_local": tracker.config.is_local,
    "builder": stack.image_builder.flavor,
    "store": stack.artifact_store.path,
    "bucket": stack.orchestrator.config.bucket,
    "registered": [
        Client().get_stack_component(kind, components[0].name).configuration
        for kind, components in Client().active_stack_model.components.items()
    ],
}, default=str))
"""


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    for name, value in VALUES.items():
        monkeypatch.setenv(name, value)
    yield
    # `load_values` is meant to change its process's environment for good.
    os.environ.clear()
    os.environ.update(before)


def registered(home: Path, **more: str) -> dict:
    environment = {
        **{name: value for name, value in os.environ.items() if name not in VALUES},
        **VALUES,
        "PYTHONPATH": str(CHECKOUT),
        "DARKROOM_HOME": str(home),
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=home.parent,
        env={name: value for name, value in environment.items() if value},
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_token_is_kept_in_zenmls_secrets_and_only_referred_to(tmp_path: Path) -> None:
    stack = registered(tmp_path / "home")
    assert stack["tracker"] == "MLFlowExperimentTracker"
    assert stack["token"] == "very-secret"
    assert "very-secret" not in json.dumps(stack["registered"])
    assert stack["store"] == "s3://pictures/darkroom/zenml"
    assert stack["bucket"] == "pictures"
    assert stack["builder"] == "local"


@pytest.mark.slow
def test_managed_mlflow_is_a_tracker_by_its_arn(tmp_path: Path) -> None:
    stack = registered(
        tmp_path / "home",
        DARKROOM_MLFLOW_URI=ARN,
        DARKROOM_MLFLOW_TOKEN="",
        DARKROOM_CODEBUILD_PROJECT="images",
    )
    assert stack["tracker"] == "ManagedMLflow"
    assert stack["uri"] == ARN
    assert stack["is_local"] is False
    assert stack["builder"] == "aws"


def test_everything_that_is_missing_is_named_at_once(
    values: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("DARKROOM_MLFLOW_TOKEN")
    monkeypatch.setenv("DARKROOM_S3_ROOT", "pictures")
    with pytest.raises(UserError) as caught:
        load_values("sagemaker", file=tmp_path / "none.env")
    first, second, third = caught.value.problems
    assert first.startswith("AWS_REGION is not set")
    assert "'pictures'; it must be s3://bucket/prefix" in second
    assert third.startswith("DARKROOM_MLFLOW_TOKEN is not set")


def test_values_come_from_a_file_unless_the_environment_says_otherwise(
    values: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DARKROOM_ROLE_ARN")
    file = tmp_path / "sagemaker.env"
    file.write_text(
        "# mine\n\nexport DARKROOM_ROLE_ARN='arn:aws:iam::1:role/filed'\nAWS_REGION=us-east-1\n"
    )
    load_values("sagemaker", file=file)
    assert os.environ["DARKROOM_ROLE_ARN"] == "arn:aws:iam::1:role/filed"
    assert os.environ["AWS_REGION"] == "eu-west-1"
    assert os.environ["DARKROOM_S3_ROOT"] == "s3://pictures/darkroom"


def test_a_line_that_is_no_assignment_is_shown(values: None, tmp_path: Path) -> None:
    file = tmp_path / "sagemaker.env"
    file.write_text("AWS_REGION=eu-west-1\nAWS REGION\n")
    with pytest.raises(UserError, match=r"line 2 of sagemaker\.env is 'AWS REGION'"):
        load_values("sagemaker", file=file)


def test_the_rehearsals_stack_has_the_same_components_as_sagemakers() -> None:
    import yaml

    def shape(name: str) -> dict[str, list[str]]:
        stack = yaml.safe_load((CHECKOUT / "stacks" / f"{name}.yaml").read_text())
        return {
            kind: sorted(parts[0]["configuration"])
            for kind, parts in stack["components"].items()
            if kind != "image_builder"
        }

    assert shape("rehearsal") == shape("sagemaker")


def test_one_orchestrating_job_without_the_sdks_debugger_and_warm_pool(values: None) -> None:
    from darkroom.config.sagemaker import NetworkConfig, SageMakerConfig
    from stacks.orchestration import remote_options

    network = NetworkConfig(subnets=("subnet-1",), security_group_ids=("sg-1",))
    options = remote_options(SageMakerConfig(network=network, kms_key="key-1"), run="dogs-1")
    job = options["settings"]["orchestrator"]
    assert job.keep_alive_period_in_seconds is None
    assert job.synchronous is False
    assert job.tags["darkroom:run"] == "dogs-1"
    assert job.estimator_args == {
        "disable_profiler": True,
        "debugger_hook_config": False,
        "subnets": ["subnet-1"],
        "security_group_ids": ["sg-1"],
        "volume_kms_key": "key-1",
        "output_kms_key": "key-1",
    }
    assert "DARKROOM_MLFLOW_TOKEN" not in options["environment"]
    assert options["settings"]["docker"].dockerfile.endswith("infrastructure/Dockerfile")


def test_an_image_of_the_users_is_not_built_again(
    values: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darkroom.config.sagemaker import SageMakerConfig
    from stacks.orchestration import remote_options

    monkeypatch.setenv("DARKROOM_IMAGE", "123.dkr.ecr.eu-west-1.amazonaws.com/mine:1")
    image = remote_options(SageMakerConfig(), run="x")["settings"]["docker"]
    assert image.skip_build
    assert image.parent_image == "123.dkr.ecr.eu-west-1.amazonaws.com/mine:1"
