"""A training that fails is diagnosed at once, in the component that it failed in."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from zenml.utils.source_utils import set_custom_source_root

from checkout import CHECKOUT
from darkroom.backends.contract import FailedTrainingError
from darkroom.base.errors import DarkroomError
from darkroom.config.debugging import Debugging, DiagnosisConfig, RecordingConfig, RuleConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from darkroom.telemetry.recording import Recording
from darkroom.training.loop import train
from small_trainings import small_hyperparameters, write_dataset

# A step wants to know where its code lies, which a worker of pytest's cannot tell.
set_custom_source_root(str(CHECKOUT))


from steps.diagnose import diagnose_training
from steps.train import _diagnosed_on_failure

pytestmark = pytest.mark.slow  # they train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def diverged(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The error of a training whose loss is no number, and its recording."""
    home = tmp_path_factory.mktemp("diverged")
    with pytest.raises(DarkroomError, match="not finite") as raised:
        train(
            dataset,
            hyperparameters=small_hyperparameters(
                learning_rate=10, optimizer="sgd", gradient_clip=0, epochs=20, warmup_epochs=0
            ),
            folder=home / "run",
            cache=home / "cache",
            debugging=Debugging(recording=RecordingConfig(backend="torch", profiled_steps=0)),
        )
    return str(raised.value), home / "run" / "recording"


@pytest.fixture
def tracked(tmp_path: Path) -> Iterator[str]:
    """An MLflow run, as ZenML's experiment tracker opens one for a component."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.create_experiment("tests", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("tests")
    with mlflow.start_run(run_name="digits-1") as run:
        yield run.info.run_id
    mlflow.set_tracking_uri(before)


def failed(dataset: Dataset, *, error: str, recording: Path, config: DiagnosisConfig) -> str:
    with (
        pytest.raises(DarkroomError) as raised,
        _diagnosed_on_failure(dataset, config=config, placement=Placement()),
    ):
        raise FailedTrainingError(error, recording=recording)
    return str(raised.value)


def test_the_error_says_what_was_found_and_where_the_report_is(
    dataset: Dataset, diverged: tuple[str, Path], tracked: str
) -> None:
    error, recording = diverged
    told = failed(dataset, error=error, recording=recording, config=DiagnosisConfig())
    assert told.startswith(error)
    assert "[learning_rate_too_high]" in told
    report = recording / "training.html"
    assert told.endswith(f"The report: {report}")
    page = report.read_text()
    assert "<h1>Training digits-1</h1>" in page
    assert "The training failed: the training diverged" in page
    found = {file.path for file in MlflowClient().list_artifacts(tracked, "reports")}
    assert found == {"reports/training.html", "reports/diagnosis.json"}


def test_what_ended_the_training_is_not_told_twice(
    dataset: Dataset, diverged: tuple[str, Path], tracked: str
) -> None:
    _, recording = diverged
    first = failed(dataset, error="failed", recording=recording, config=DiagnosisConfig())
    line = first.splitlines()[1].strip()
    error = f"the training was ended by a rule: {line}"
    again = failed(dataset, error=error, recording=recording, config=DiagnosisConfig())
    assert again.count(line) == 1


def test_without_diagnosis_the_error_is_as_it_was(
    dataset: Dataset, diverged: tuple[str, Path]
) -> None:
    error, recording = diverged
    off = DiagnosisConfig(enabled=False)
    assert failed(dataset, error=error, recording=recording, config=off) == error


def test_a_training_that_cannot_be_diagnosed_says_all_the_same_why_it_failed(
    dataset: Dataset, diverged: tuple[str, Path], tracked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*positional: object, **named: object) -> str:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr("darkroom.reports.training_page.training_report", broken)
    error, recording = diverged
    told = failed(dataset, error=error, recording=recording, config=DiagnosisConfig())
    assert told == f"{error}\n  it could not be diagnosed: ZeroDivisionError: by nought"


def test_a_finding_that_fails_the_run_does_so_once_the_report_is_there(
    dataset: Dataset,
    diverged: tuple[str, Path],
    tracked: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("steps.diagnose.log_metadata", lambda metadata: None)
    rules = {"learning_rate_too_high": RuleConfig(action="fail")}
    with pytest.raises(DarkroomError, match=r"^the run was failed by a rule:\n  error: ") as raised:
        diagnose_training.entrypoint(
            Recording(diverged[1]), dataset, DiagnosisConfig(rules=rules), Placement(), ""
        )
    told = str(raised.value)
    assert "[learning_rate_too_high]" in told
    report = Path(told.rpartition("The report: ")[2])
    assert report.parent.name == "digits-1"
    assert "The learning rate is too high" in report.read_text()
    found = {file.path for file in MlflowClient().list_artifacts(tracked, "reports")}
    assert found == {"reports/training.html", "reports/diagnosis.json"}
