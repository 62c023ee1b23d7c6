"""What serves and costs is listed, and taken down: by name, run, time to live, or all of it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from commands.down import remove as down
from commands.endpoints import list_endpoints as show_endpoints
from darkroom.backends.sagemaker.cleanup import EndpointRow, Selection, find, list_endpoints, remove
from darkroom.base.errors import UserError
from emulated import training_request
from rehearsed_hosting import Rehearsed, briefly, enter, rehearsed

pytestmark = pytest.mark.slow

_NOTHING: dict[str, Any] = {"name": None, "run": None, "everything": False, "expired": False}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    with rehearsed(tmp_path_factory.mktemp("inventory")) as opened:
        yield opened


@pytest.fixture
def aws(opened: Rehearsed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsed]:
    """The stand-in as the stack `sagemaker`'s account, empty again afterwards."""
    values = {
        "DARKROOM_ROLE_ARN": "arn:aws:iam::123456789012:role/jobs",
        "DARKROOM_S3_ROOT": "s3://bucket/prefix",
        "DARKROOM_ECR_REGISTRY": "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        "DARKROOM_MLFLOW_URI": "http://127.0.0.1:1",
        "DARKROOM_MLFLOW_TOKEN": "token",
        "ZENML_STORE_URL": "http://127.0.0.1:2",
    }
    # The command derives further values from these, in this process.
    for name in ("DARKROOM_BUCKET", "DARKROOM_MLFLOW_FLAVOR", "DARKROOM_IMAGE_BUILDER"):
        monkeypatch.setenv(name, "")
    for name in ("AWS_DEFAULT_REGION", "ZENML_STORE_TYPE", "SAGEMAKER_SUPPRESS_V2_WARNING"):
        monkeypatch.setenv(name, "")
    for name in ("DARKROOM_IMAGE", "DARKROOM_ENDPOINT_ROLE_ARN", "DARKROOM_CODEBUILD_PROJECT"):
        monkeypatch.setenv(name, "")
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield enter(opened, monkeypatch)
    for thing in find(Selection(everything=True), clients=opened.clients):
        remove(thing, clients=opened.clients, pause=briefly)
    assert opened.names() == set()


def rows(aws: Rehearsed) -> dict[str, EndpointRow]:
    found = list_endpoints(clients=aws.clients, region="us-east-1", price=lambda *_: 0.5)
    return {row.name: row for row in found}


def expire(aws: Rehearsed, name: str) -> None:
    moment = datetime.now(UTC) - timedelta(minutes=1)
    tag = {"Key": "darkroom:expires", "Value": moment.isoformat()}
    arn = aws.clients.sagemaker.describe_endpoint(EndpointName=name)["EndpointArn"]
    aws.clients.sagemaker.add_tags(ResourceArn=arn, Tags=[tag])


def test_endpoints_are_listed_with_what_they_cost(
    aws: Rehearsed, capsys: pytest.CaptureFixture[str]
) -> None:
    version = aws.bundle("listed").metadata.version
    scaling = {"min_instances": 2, "max_instances": 4}
    site = aws.site(hosting={"time_to_live_hours": 1, "autoscaling": scaling})
    aws.deploy(aws.bundle("listed"), site=site, name="listed")
    row = rows(aws)["listed"]
    assert (row.status, row.kind, row.run) == ("InService", "realtime", "run-1")
    assert (row.instance_type, row.instances, row.cost_per_hour) == ("ml.m5.large", 2, 1.0)
    assert row.model_version == version
    assert row.expires is not None
    assert not row.has_expired
    show_endpoints(stack="sagemaker", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["cost_per_hour"]) for one in shown] == [("listed", 0.23)]
    show_endpoints(stack="sagemaker", as_json=False)
    assert "$0.230" in capsys.readouterr().out


def test_an_empty_account_is_no_error(aws: Rehearsed, capsys: pytest.CaptureFixture[str]) -> None:
    show_endpoints(stack="sagemaker", as_json=False)
    assert "No endpoints" in capsys.readouterr().out
    for choice in ("everything", "expired"):
        down(stack="sagemaker", yes=True, **_NOTHING | {choice: True})
        assert "Nothing to remove" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no endpoint 'pets'.*run\.py endpoints"):
        down(stack="sagemaker", yes=True, **_NOTHING | {"name": "pets"})
    with pytest.raises(UserError, match="the run 'r' has left nothing"):
        down(stack="sagemaker", yes=True, **_NOTHING | {"run": "r"})


def test_an_endpoint_goes_by_its_name_with_all_that_belongs_to_it(
    aws: Rehearsed, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.deploy(aws.bundle("one"), site=aws.site(), name="one")
    aws.deploy(aws.bundle("two"), site=aws.site(), name="two")
    down(stack="sagemaker", yes=True, **_NOTHING | {"name": "one"})
    said = capsys.readouterr().out
    assert "remove  endpoint one, cost per hour: $0.115" in said
    assert "stay: they are records" in said
    left = aws.names()
    assert "two" in left
    assert len(left) == 3  # with its configuration and model
    assert all(name.startswith("two") for name in left)


def test_what_has_expired_goes_and_what_has_not_stays(aws: Rehearsed) -> None:
    for name in ("old", "young"):
        site = aws.site(hosting={"time_to_live_hours": 1})
        aws.deploy(aws.bundle(name), site=site, name=name)
    expire(aws, "old")
    assert rows(aws)["old"].has_expired
    down(stack="sagemaker", yes=True, **_NOTHING | {"expired": True})
    assert {name.split("-")[0] for name in aws.names()} == {"young"}


def test_a_run_goes_but_not_what_a_later_run_serves(aws: Rehearsed) -> None:
    aws.kept("live")
    aws.deploy(aws.bundle("check"), site=aws.site(), name="check", keep=False)
    # The same model again, by another run: the configuration is still tagged with the first.
    aws.deploy(aws.bundle("live"), site=aws.site(run="run-2"), name="live")
    before = aws.names()
    down(stack="sagemaker", yes=True, **_NOTHING | {"run": "run-1"})
    assert aws.names() == {name for name in before if name.startswith("live")}


def test_jobs_and_pipelines_of_a_run_go_too(
    aws: Rehearsed, capsys: pytest.CaptureFixture[str]
) -> None:
    service = aws.clients.sagemaker
    tags = [{"Key": "darkroom:run", "Value": "run-9"}]
    place = {"OutputDataConfig": {"S3OutputPath": "s3://bucket/out"}}
    for name, more in (("sleeper", {"Tags": tags}), ("theirs", {})):
        service.create_training_job(**training_request(name, script="sleep 60", **place, **more))
    service.create_pipeline(
        PipelineName="digits-1",
        PipelineDefinition=json.dumps({"Version": "2020-12-01", "Steps": []}),
        RoleArn="arn:aws:iam::123456789012:role/jobs",
        ClientRequestToken="0" * 32,
        Tags=tags,
    )
    down(stack="sagemaker", yes=True, **_NOTHING | {"run": "run-9"})
    said = capsys.readouterr().out
    assert "stop  training job sleeper" in said
    assert "remove  pipeline digits-1" in said
    states = {
        name: service.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
        for name in ("sleeper", "theirs")
    }
    assert states["sleeper"] in ("Stopping", "Stopped")
    assert states["theirs"] == "InProgress"
    assert service.list_pipelines()["PipelineSummaries"] == []
    service.stop_training_job(TrainingJobName="theirs")


def test_what_is_not_darkrooms_is_never_touched(aws: Rehearsed) -> None:
    service = aws.clients.sagemaker
    service.create_model(
        ModelName="theirs",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/jobs",
        PrimaryContainer={"Image": "image"},
        Tags=[{"Key": "run", "Value": "run-1"}],
    )
    assert find(Selection(everything=True), clients=aws.clients) == []
    service.delete_model(ModelName="theirs")


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        down(stack="sagemaker", yes=False, name="pets", run="r", everything=True, expired=False)
    assert "NAME ('pets') and --run ('r') and --all exclude each other" in str(caught.value)
    with pytest.raises(UserError, match="say what to remove"):
        down(stack="sagemaker", yes=True, **_NOTHING)


def test_without_a_kept_rehearsal_there_is_nothing_to_look_at() -> None:
    with pytest.raises(UserError, match="python -m rehearsal"):
        show_endpoints(stack="rehearsal", as_json=False)
