"""The `train` program: SageMaker's training contract below a base folder."""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from darkroom.backends.local.training import train_bundle
from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import Hyperparameters
from darkroom.config.debugging import Debugging, RecordingConfig
from darkroom.data.dataset import Dataset
from darkroom.debugging.recording.reader import read_evidence
from darkroom.models.bundle import read_metadata
from darkroom.telemetry.epochs import EpochMetrics, kept_values
from darkroom.training import program as training_program
from darkroom.training.channels import JobPaths, read_channels
from darkroom.training.hyperparameters import to_strings
from pictures import write_image_folder

pytestmark = pytest.mark.slow  # they train

HYPERPARAMETERS = Hyperparameters(
    architecture="squeezenet1_1",
    weights="none",
    image_size=32,
    epochs=2,
    batch_size=8,
    augmentation="none",
    learning_rate=1e-3,
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job with channels for training and validation."""
    base = tmp_path / "ml"
    write_image_folder(base / "input" / "data", splits=("train", "validation"), per_class=8)
    configure(base)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    return base


def configure(base: Path, **files: Any) -> None:
    config = base / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    for name, content in ({"hyperparameters": to_strings(HYPERPARAMETERS)} | files).items():
        (config / f"{name}.json").write_text(
            content if isinstance(content, str) else json.dumps(content)
        )


def failure(base: Path) -> str:
    return (base / "output" / "failure").read_text()


@pytest.fixture(autouse=True)
def signal_handlers_are_put_back() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_a_job_leaves_model_history_and_metric_lines(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base / "model").mkdir()  # as in a container, where it is a mount
    (base / "output").mkdir()
    (base / "output" / "failure").write_text("of an earlier start")
    assert training_program.main(["train"]) == 0
    metadata = read_metadata(base / "model")
    assert metadata.classes == ("blue", "green", "red")
    assert metadata.hyperparameters == HYPERPARAMETERS.model_dump()
    history = json.loads((base / "output" / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2]
    best = history["epochs"][history["best_epoch"] - 1]
    assert metadata.metrics == best["validation"]
    printed = re.findall(r"^epoch=.* validation_f1_macro=(\S+)", capsys.readouterr().out, re.M)
    assert [float(value) for value in printed] == [
        pytest.approx(epoch["validation"]["f1_macro"], abs=1e-3) for epoch in history["epochs"]
    ]
    assert (base / "output" / "data" / "history.json").read_text() == json.dumps(
        history, indent=1
    ) + "\n"
    assert not (base / "output" / "failure").exists()
    assert sorted(path.name for path in base.iterdir() if path.name.startswith(".")) == []


def test_the_log_ends_with_the_metrics_of_the_kept_epoch(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert training_program.main([]) == 0
    last = [line for line in capsys.readouterr().out.splitlines() if "validation_" in line][-1]
    kept = kept_values(last)
    assert kept == pytest.approx(read_metadata(base / "model").metrics, rel=1e-9)


def test_initial_weights_from_s3_are_read_from_their_channel(base: Path) -> None:
    configure(base, hyperparameters=weights_from_s3())
    channel = base / "input" / "data" / "weights"
    assert training_program.main([]) == 2
    assert "'s3://bucket/weights/abc/', but the channel 'weights'" in failure(base)
    channel.mkdir()
    (channel / "start.safetensors").write_bytes(b"no weights")
    assert training_program.main([]) == 2
    assert f"{str(channel / 'start.safetensors')!r} is no readable safetensors" in failure(base)
    (channel / "start.safetensors").unlink()
    shutil.copytree(first_bundle(base), channel, dirs_exist_ok=True)
    configure(base, hyperparameters=weights_from_s3())
    assert training_program.main([]) == 0


def weights_from_s3() -> dict[str, str]:
    return to_strings(HYPERPARAMETERS.replace(weights="s3://bucket/weights/abc/"))


def first_bundle(base: Path) -> Path:
    """A bundle that another job on the same data left."""
    configure(base)
    assert training_program.main([]) == 0
    return base / "model"


def test_a_stopped_job_goes_on_from_its_checkpoint(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "whole")
    assert training_program.main([]) == 0

    def stop_after_an_epoch(self: EpochMetrics) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "stopped"

    stopped = tmp_path / "whole"
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(stopped))
    with monkeypatch.context() as patch:
        patch.setattr(EpochMetrics, "log_line", stop_after_an_epoch)
        with pytest.raises(SystemExit) as ended:
            training_program.main([])
    assert ended.value.code == 143
    assert not (stopped / "model" / "model.json").exists()
    assert training_program.main([]) == 0
    histories = [json.loads((b / "output" / "history.json").read_text()) for b in (base, stopped)]
    assert [h["best_epoch"] for h in histories] == [histories[0]["best_epoch"]] * 2
    for one, other in zip(histories[0]["epochs"], histories[1]["epochs"], strict=True):
        assert one["validation"] == other["validation"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"hyperparameters": {"learning_rate": "abc"}}, "'learning_rate' is 'abc'"),
        ({"hyperparameters": {"architecture": "resnet19"}}, "resnet19"),
        ({"hyperparameters": {"epoch": "3"}}, "did you mean 'epochs'"),
        ({"hyperparameters": "{"}, "no JSON"),
        ({"hyperparameters": "[]"}, "must hold a JSON object"),
        ({"resourceconfig": {"hosts": ["algo-1", "algo-2"]}}, "current_host None"),
        ({"inputdataconfig": {"train": {"TrainingInputMode": "Pipe"}}}, "'Pipe'"),
    ],
)
def test_the_users_mistake_is_in_the_failure_file(
    base: Path, files: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(base, **files)
    assert training_program.main([]) == 2
    assert words in failure(base)
    assert words in capsys.readouterr().err
    assert not (base / "model").exists()


def test_what_sagemaker_writes_is_accepted(base: Path) -> None:
    configure(
        base,
        hyperparameters={"optimizer": '"sgd"', "_tuning_objective_metric": "f1_macro"},
        resourceconfig={"current_host": "algo-1", "hosts": ["algo-1"]},
        inputdataconfig={"train": {"TrainingInputMode": "File"}, "validation": {}},
    )
    order = training_program.read_job(JobPaths.at(base))
    dataset = order.data.dataset
    assert order.hyperparameters.optimizer == "sgd"
    assert len(dataset.split("train")) == len(dataset.split("validation")) == 24


def test_a_broken_image_is_named_in_the_failure_file(base: Path) -> None:
    (base / "input" / "data" / "train" / "red" / "0003.png").write_bytes(b"no picture")
    assert training_program.main([]) != 0
    assert "0003.png" in failure(base)


def test_an_unexpected_failure_is_exit_code_1_with_its_reason(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("darkroom.training.loop.train", out_of_memory)
    assert training_program.main([]) == 1
    assert failure(base) == "RuntimeError: out of memory"
    assert "Traceback" in capsys.readouterr().err


def test_without_channels_it_is_said_which_are_needed(base: Path) -> None:
    shutil.rmtree(base / "input" / "data")
    assert training_program.main([]) == 2
    assert "needs 'train'" in failure(base)


def test_one_class_is_not_enough(base: Path) -> None:
    for name in ("green", "red"):
        for split in ("train", "validation"):
            shutil.rmtree(base / "input" / "data" / split / name)
    assert training_program.main([]) == 2
    assert "one class only" in failure(base)


# The channels.


def test_one_channel_may_hold_class_folders_without_splits(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "data" / "training", per_class=10)
    dataset = read_channels(tmp_path / "data", seed=1, store=tmp_path / "store").dataset
    counts = {split: len(dataset.split(split)) for split in ("train", "validation", "test")}
    assert counts["train"] + counts["validation"] == 30
    assert counts["validation"] > 0
    assert counts["test"] == 0


def manifest_in_channel(tmp_path: Path, *, root: Path) -> Dataset:
    source = write_image_folder(root, splits=("train", "validation"), per_class=2)
    dataset = read_channels(source, seed=1, store=tmp_path / "store").dataset
    channel = tmp_path / "data" / "training"
    channel.mkdir(parents=True, exist_ok=True)
    (channel / "manifest.json").write_text(dataset.to_json())
    return dataset


def test_a_manifest_names_images_elsewhere(tmp_path: Path) -> None:
    dataset = manifest_in_channel(tmp_path, root=tmp_path / "elsewhere")
    assert read_channels(tmp_path / "data", seed=1, store=tmp_path / "store").dataset == dataset


def test_a_manifest_that_moved_finds_its_images_beside_it(tmp_path: Path) -> None:
    dataset = manifest_in_channel(tmp_path, root=tmp_path / "elsewhere")
    for split in ("train", "validation"):
        shutil.move(tmp_path / "elsewhere" / split, tmp_path / "data" / "training" / split)
    moved = read_channels(tmp_path / "data", seed=1, store=tmp_path / "store").dataset
    assert moved.root == tmp_path / "data" / "training"
    assert moved.fingerprint == dataset.fingerprint


def test_a_manifest_without_its_images_is_refused(tmp_path: Path) -> None:
    manifest_in_channel(tmp_path, root=tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="lie neither in"):
        read_channels(tmp_path / "data", seed=1, store=tmp_path / "store")


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"root": 1}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="no manifest"):
        read_channels(tmp_path, seed=1, store=tmp_path / "store")


# The local backend.


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    root = write_image_folder(tmp_path / "data", splits=("train", "validation"), per_class=8)
    return read_channels(root, seed=1, store=tmp_path / "store").dataset


def train_locally(dataset: Dataset, tmp_path: Path, **settings: Any) -> Any:
    epochs: list[EpochMetrics] = []
    trained = train_bundle(
        dataset,
        hyperparameters=HYPERPARAMETERS.replace(**settings),
        folder=tmp_path / "work",
        cache=tmp_path / "cache",
        on_epoch=epochs.append,
    )
    assert trained.history == epochs
    return trained


def test_training_here_leaves_the_bundle_and_nothing_else(dataset: Dataset, tmp_path: Path) -> None:
    trained = train_locally(dataset, tmp_path)
    assert trained.metrics == trained.history[trained.best_epoch - 1].validation
    assert trained.bundle.folder == tmp_path / "work" / "bundles" / trained.bundle.metadata.version
    assert read_metadata(trained.bundle.folder) == trained.bundle.metadata
    left = [path.suffix for path in (tmp_path / "work" / "training").iterdir()]
    assert left == [".lock"]
    again = train_locally(dataset, tmp_path)
    assert again.bundle == trained.bundle


def test_two_processes_end_with_the_metrics_of_one(dataset: Dataset, tmp_path: Path) -> None:
    one = train_locally(dataset, tmp_path)
    two = train_locally(dataset, tmp_path, processes=2)
    assert len(two.history) == 2
    assert two.bundle.metadata.hyperparameters["processes"] == 2
    # Dropout draws in each process for itself, so the metrics cannot be equal; that they are
    # without it is shown in test_distributed.py.
    assert two.metrics["log_loss"] == pytest.approx(one.metrics["log_loss"], rel=0.3)


def test_the_first_process_of_two_records_the_mean_loss_of_its_share(
    dataset: Dataset, tmp_path: Path
) -> None:
    evidence = []
    for processes in (1, 2):
        trained = train_bundle(
            dataset,
            hyperparameters=HYPERPARAMETERS.replace(processes=processes),
            folder=tmp_path / "work",
            cache=tmp_path / "cache",
            debugging=Debugging(recording=RecordingConfig()),
        )
        assert trained.recording
        evidence.append(read_evidence(trained.recording))
    one, two = (each.steps for each in evidence)
    assert two.images[0] == one.images[0] / 2
    # The logits of a new network hardly differ: any share's mean is about the logarithm of the
    # number of classes, and its part of the batch's mean half of that.
    assert two.loss[0] == pytest.approx(one.loss[0], rel=0.2)


def test_the_mistake_of_a_process_is_the_jobs(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.safetensors"):
        train_locally(dataset, tmp_path, processes=2, weights=str(tmp_path / "missing.safetensors"))


def test_an_interrupted_job_leaves_no_processes(dataset: Dataset, tmp_path: Path) -> None:
    def interrupt(epoch: EpochMetrics) -> None:
        assert len(processes_of_job(tmp_path)) == 3
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_bundle(
            dataset,
            hyperparameters=HYPERPARAMETERS.replace(processes=2, epochs=200),
            folder=tmp_path / "work",
            cache=tmp_path / "cache",
            on_epoch=interrupt,
        )
    assert processes_of_job(tmp_path) == []


def processes_of_job(folder: Path) -> list[psutil.Process]:
    """Processes whose job lies below a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SAGEMAKER_BASE_DIR", "").startswith(str(folder)):
                found.append(process)
    return found


def test_a_job_that_cannot_start_shows_where_its_log_is(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(DarkroomError, match=r"ended with code 1; its log is .*train\.log"):
        train_locally(dataset, tmp_path, processes=2)
