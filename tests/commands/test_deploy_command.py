"""`run.py deploy`: bundles that are there already, on this machine and on a stand-in for AWS."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from commands import declared
from commands.deploy import deploy_models, expectations, named_models
from commands.down import remove as down
from commands.endpoints import list_endpoints
from darkroom.backends.local.endpoint import EndpointClient
from darkroom.backends.local.records import kept_endpoints, models_of, several_named
from darkroom.backends.sagemaker.hosting.client import client_of
from darkroom.base.errors import DarkroomError, UserError
from darkroom.models.bundle import METADATA_FILE, Bundle, parity_picture, read_bundle
from darkroom.models.prediction import Predictor
from pictures import write_image_folder
from rehearsed_hosting import Rehearsed, enter, rehearsed
from run import cli
from small_bundles import CLASSES, pack_small_bundle, write_small_bundle

MOODS = ("calm", "fresh", "angry")
VALUES = {
    "DARKROOM_ROLE_ARN": "arn:aws:iam::123456789012:role/jobs",
    "DARKROOM_S3_ROOT": "s3://bucket/prefix",
    "DARKROOM_ECR_REGISTRY": "123456789012.dkr.ecr.us-east-1.amazonaws.com",
    "DARKROOM_IMAGE": "123456789012.dkr.ecr.us-east-1.amazonaws.com/darkroom:1",
    "DARKROOM_MLFLOW_URI": "http://127.0.0.1:1",
    "DARKROOM_MLFLOW_TOKEN": "token",
    "ZENML_STORE_URL": "http://127.0.0.1:2",
}
DERIVED = (
    *("DARKROOM_BUCKET", "DARKROOM_MLFLOW_FLAVOR", "DARKROOM_IMAGE_BUILDER"),
    *("AWS_DEFAULT_REGION", "ZENML_STORE_TYPE", "SAGEMAKER_SUPPRESS_V2_WARNING"),
    *("DARKROOM_ENDPOINT_ROLE_ARN", "DARKROOM_CODEBUILD_PROJECT"),
)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundles") / "colours")


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_small_bundle(
        tmp_path_factory.mktemp("bundles") / "moods.tar.gz", image_size=32, classes=MOODS
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("images"), per_class=2, suffix=".png")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace of its own, in which nothing runs on."""
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path))
    yield tmp_path
    if kept_endpoints():
        down(stack="local", name=None, run=None, everything=True, expired=False, yes=True)
    assert kept_endpoints() == []
    assert list((tmp_path / "endpoints").glob("models-*")) == []


def deploy(*models: str, stack: str = "local", **options: object) -> None:
    wanted = {"name": None, "config": None, "overrides": (), "check": None, **options}
    deploy_models(models=models, stack=stack, **wanted)  # type: ignore[arg-type]


# What is asked for


def test_models_have_the_names_that_they_are_given(colours: Path, moods: Path) -> None:
    named = named_models([f"a.b-1={colours}", f"moods={moods}"])
    assert named == {"a.b-1": str(colours), "moods": str(moods)}
    assert named_models([str(moods)]) == {"": str(moods)}


def test_a_path_with_an_equals_sign_is_a_path(colours: Path, tmp_path: Path) -> None:
    odd = tmp_path / "epochs=4"
    odd.symlink_to(colours)
    assert named_models([str(odd)]) == {"": str(odd)}


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (("a", "b"), "several models need names"),
        (("x=a", "b"), "without one: 'b'"),
        (("x=a", "x=b"), "two models have the name 'x'"),
        (("../x=a",), "no name for a model"),
        (("=a",), "no name for a model"),
    ],
)
def test_names_that_cannot_be_are_refused(models: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        named_models(models)


def test_without_a_bundle_the_newest_runs_is_meant(home: Path) -> None:
    with pytest.raises(UserError, match="no model yet"):
        deploy()


def test_without_a_folder_the_bundles_own_picture_is_compared(
    colours: Path, tmp_path: Path
) -> None:
    probabilities = Predictor.load(colours).predict([parity_picture()])[0]
    bundle = with_parity(colours, folder=tmp_path / "with", probabilities=probabilities.tolist())
    with expectations({"": bundle}, folder=None) as expected:
        assert expected[""].probabilities.shape == (1, 3)
        assert expected[""].images[0].read_bytes() == parity_picture()
    with expectations({"": read_bundle(colours)}, folder=None) as expected:
        assert expected == {}


def test_a_folder_without_images_is_refused(colours: Path, tmp_path: Path) -> None:
    bundles = {"": read_bundle(colours)}
    with (
        pytest.raises(UserError, match="holds no images"),
        expectations(bundles, folder=tmp_path),
    ):
        pass


def with_parity(source: Path, *, folder: Path, probabilities: list[float]) -> Bundle:
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / METADATA_FILE).read_text())
    image = base64.b64encode(parity_picture()).decode()
    content["parity"] = {"image": image, "probabilities": probabilities}
    (folder / METADATA_FILE).write_text(json.dumps(content))
    return read_bundle(folder)


# On this machine


@pytest.mark.slow
def test_one_bundle_serves_on_this_machine_until_it_is_taken_down(
    home: Path, moods: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(str(moods), name="alone", check=images)
    said = capsys.readouterr().out
    assert "alone serves at http://127.0.0.1:" in said
    assert "answers as here to 6 images" in said
    assert "curl --data-binary" in said
    (kept,) = kept_endpoints()
    assert kept.run.startswith("deploy-")
    assert (home / "bundles" / kept.model_version / METADATA_FILE).is_file()


@pytest.mark.slow
def test_a_model_that_its_run_did_not_deploy_is_said_to_be_one(
    home: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home / "runs" / "weak"
    write_small_bundle(run / "model")
    (run / "summary.json").write_text('{"endpoint_reason": "accuracy 0.1300 is below 0.6"}')
    (run.parent / "latest").symlink_to("weak")
    deploy(name="weak", check=images)
    told = "Run weak itself did not deploy this model: accuracy 0.1300 is below 0.6."
    assert told in capsys.readouterr().err
    deploy(str(run / "model"), name="weak", check=images)
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_several_bundles_serve_on_this_machine_and_others_join_them(
    home: Path, colours: Path, moods: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(f"colours={colours}", f"moods={moods}", name="both", check=images)
    deploy(f"more={colours}", name="both", check=images)
    (kept,) = kept_endpoints()
    for model, classes in (("colours", CLASSES), ("moods", MOODS), ("more", CLASSES)):
        assert classes_at(kept.url, model=model, images=images) == set(classes)
    with pytest.raises(UserError, match="another model 'more'"):
        deploy(f"more={moods}", name="both")
    for target, told in (("nope", "no model 'nope.tar.gz'"), ("", "no model is named")):
        said = predict_by(target, endpoint="both", stack="local", images=images)
        assert told in said
        assert "there are 'colours.tar.gz', 'moods.tar.gz', 'more.tar.gz'" in said
    down(
        stack="local",
        name="both",
        model="more",
        run=None,
        everything=False,
        expired=False,
        yes=False,
    )
    capsys.readouterr()
    list_endpoints(stack="local", as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["models"] == ["colours", "moods"]
    assert several_named("both") is not None
    assert several_named("other") is None


@pytest.mark.slow
def test_a_model_that_answers_wrongly_does_not_join_the_others_on_this_machine(
    home: Path, colours: Path, tmp_path: Path
) -> None:
    wrong = with_parity(colours, folder=tmp_path / "wrong", probabilities=[0.5, 0.25, 0.25])
    with pytest.raises(DarkroomError, match="computes other probabilities"):
        deploy(f"wrong={wrong.folder}", name="both")
    assert kept_endpoints() == []
    deploy(f"colours={colours}", name="both")
    with pytest.raises(DarkroomError, match="computes other probabilities"):
        deploy(f"wrong={wrong.folder}", name="both")
    kept = several_named("both")
    assert kept is not None
    assert models_of(kept) == ["colours"]


def predict_by(target: str, *, endpoint: str, stack: str, images: Path) -> str:
    """What `predict` has against a target model."""
    arguments = ["predict", str(images), "--endpoint", endpoint, "--stack", stack, "--csv"]
    ran = CliRunner().invoke(cli, [*arguments, *(["--target-model", target] if target else [])])
    assert isinstance(ran.exception, UserError)
    assert ran.stdout == ""
    return str(ran.exception)


def classes_at(url: str, *, model: str, images: Path) -> set[str]:
    image = next(images.rglob("*.png"))
    with EndpointClient(url, target_model=f"{model}.tar.gz") as client:
        answer = client.invoke(image.read_bytes(), content_type="image/png")
    return {item["class"] for item in answer["top_k"]}


# On a stand-in for AWS


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    with rehearsed(tmp_path_factory.mktemp("deploy")) as opened:
        yield opened


@pytest.fixture
def aws(opened: Rehearsed, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsed]:
    for name in DERIVED:
        monkeypatch.setenv(name, "")
    for name, value in VALUES.items():
        monkeypatch.setenv(name, value)
    yield enter(opened, monkeypatch)
    down(stack="sagemaker", name=None, run=None, everything=True, expired=False, yes=True)
    assert opened.names() == set()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["realtime", "serverless", "asynchronous"])
def test_a_bundle_is_deployed_as_each_kind_of_endpoint(
    kind: str, aws: Rehearsed, colours: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(
        str(colours),
        stack="sagemaker",
        name=f"one-{kind}",
        check=images,
        overrides=[f"sagemaker.hosting.kind={kind}"],
    )
    said = capsys.readouterr().out
    assert f"one-{kind} serves on the stack sagemaker in us-east-1 ({kind})" in said
    if kind == "realtime":
        refusal = predict_by("dogs", endpoint=f"one-{kind}", stack="sagemaker", images=images)
        assert refusal.endswith("has one model alone: leave out --target-model 'dogs.tar.gz'")
    assert "answers as here to 6 images" in said
    list_endpoints(stack="sagemaker", as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["kind"]) == (f"one-{kind}", kind)
    assert row["run"].startswith("deploy-")


@pytest.mark.slow
def test_several_bundles_are_deployed_joined_and_removed_on_aws(
    aws: Rehearsed, colours: Path, moods: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(f"colours={colours}", f"moods={moods}", stack="sagemaker", name="both", check=images)
    said = capsys.readouterr().out
    assert "colours: answers as here to 6 images" in said
    assert "--target-model colours.tar.gz" in said
    deploy(f"more={moods}", stack="sagemaker", name="both", check=images)
    said = predict_by("nope", endpoint="both", stack="sagemaker", images=images)
    assert "no model 'nope.tar.gz'; it has colours.tar.gz, moods.tar.gz, more.tar.gz" in said
    said = predict_by("", endpoint="both", stack="sagemaker", images=images)
    assert "needs --target-model, one of: colours.tar.gz, moods.tar.gz, more.tar.gz" in said
    answering = client_of("both", clients=aws.clients, target_model="more.tar.gz")
    image = next(images.rglob("*.png")).read_bytes()
    assert answering.invoke(image, content_type="image/png")["class"] in MOODS
    down(
        stack="sagemaker",
        name="both",
        model="more",
        run=None,
        everything=False,
        expired=False,
        yes=False,
    )
    capsys.readouterr()
    list_endpoints(stack="sagemaker", as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["kind"], row["models"]) == ("multi-model", ["colours", "moods"])


@pytest.mark.slow
def test_an_image_that_nobody_built_is_asked_for(
    aws: Rehearsed, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_IMAGE", "")
    with pytest.raises(UserError, match="DARKROOM_IMAGE is not set"):
        deploy(str(colours), stack="sagemaker", name="x")


def test_a_model_alone_is_removed_from_an_endpoint_alone() -> None:
    done = CliRunner().invoke(declared.down, ["--model", "x", "--all", "--stack", "local"])
    assert isinstance(done.exception, UserError)
    assert "give the endpoint's NAME" in str(done.exception)
