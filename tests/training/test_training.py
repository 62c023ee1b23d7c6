"""Training: what it returns, keeps, repeats, resumes and refuses."""

import errno
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import small_trainings
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import SilentProgress
from darkroom.data.dataset import Dataset, make_dataset
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.training.loop import TrainingResult
from small_trainings import run_training, write_dataset

pytestmark = pytest.mark.slow  # they train


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path / "images")


def outcome(result: TrainingResult) -> list[dict[str, object]]:
    """The history without the clock."""
    clock = {"images_per_second", "seconds"}
    return [epoch.model_dump(exclude=clock) for epoch in result.history]


def assert_same(first: TrainingResult, second: TrainingResult) -> None:
    """Bit for bit."""
    assert outcome(first) == outcome(second)
    other = second.model.state_dict()
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, other[name]), name


def test_a_training_learns_and_reports_every_epoch(dataset: Dataset, tmp_path: Path) -> None:
    seen: list[EpochMetrics] = []
    result = run_training(
        dataset,
        home=tmp_path,
        epochs=6,
        learning_rate=5e-3,
        image_size=32,
        on_epoch=seen.append,
    )
    assert seen == result.history
    assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4, 5, 6]
    assert result.history[-1].train_accuracy > 0.8
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert result.metrics == result.history[result.best_epoch - 1].validation
    assert result.metrics["f1_macro"] == max(epoch.validation["f1_macro"] for epoch in seen)
    assert not result.model.training
    assert not result.stopped_early
    assert all(epoch.images_per_second > 0 for epoch in seen)


def test_the_history_file_names_the_best_epoch(dataset: Dataset, tmp_path: Path) -> None:
    result = run_training(dataset, home=tmp_path, objective="log_loss")
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["best_epoch"] == result.best_epoch
    losses = [epoch["validation"]["log_loss"] for epoch in history["epochs"]]
    assert losses[result.best_epoch - 1] == min(losses)


def test_the_returned_model_is_the_best_epoch_s(dataset: Dataset, tmp_path: Path) -> None:
    options = {"objective": "log_loss", "learning_rate": 0.05, "epochs": 4, "seed": 3}
    result = run_training(dataset, home=tmp_path, **options)
    assert result.best_epoch < 4, "a case in which the last epoch is the best shows nothing"

    def stop_after_best(epoch: EpochMetrics) -> None:
        if epoch.epoch == result.best_epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(dataset, home=tmp_path, folder="b", on_epoch=stop_after_best, **options)
    saved = load_file(tmp_path / "b" / "checkpoint" / "checkpoint.safetensors")
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(tensor, saved[f"model/{name}"]), name


def test_the_same_seed_gives_the_same_result_and_another_does_not(
    dataset: Dataset, tmp_path: Path
) -> None:
    first = run_training(dataset, home=tmp_path, folder="a", epochs=2)
    torch.manual_seed(77)
    assert_same(first, run_training(dataset, home=tmp_path, folder="b", epochs=2))
    other = run_training(dataset, home=tmp_path, folder="c", epochs=2, seed=1)
    assert outcome(other) != outcome(first)


def test_training_leaves_the_global_generator_alone(dataset: Dataset, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    run_training(dataset, home=tmp_path, epochs=1, warmup_epochs=0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_killed_training_resumes_and_ends_as_if_it_had_not_been_killed(
    dataset: Dataset, tmp_path: Path
) -> None:
    whole = run_training(dataset, home=tmp_path, folder="whole")
    # Three steps an epoch; the images are decoded already. Killed in the third epoch.
    program = [sys.executable, small_trainings.__file__, str(dataset.root), str(tmp_path), "7"]
    killed = subprocess.run(program, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    messages = Messages()
    seen: list[EpochMetrics] = []
    resumed = run_training(dataset, home=tmp_path, on_epoch=seen.append, progress=messages)
    assert messages.lines[0] == "going on after epoch 2, from the checkpoint"
    assert seen == resumed.history
    assert_same(whole, resumed)


@pytest.mark.parametrize(
    "options",
    [{"optimizer": "sgd", "learning_rate": 0.05}, {"mixed_precision": "auto", "image_size": 32}],
    ids=["sgd", "mixed precision"],
)
def test_an_interrupted_training_of_any_kind_resumes_to_the_same_result(
    dataset: Dataset, tmp_path: Path, options: dict[str, object]
) -> None:
    def interrupt(epoch: EpochMetrics) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(dataset, home=tmp_path, on_epoch=interrupt, **options)
    resumed = run_training(dataset, home=tmp_path, **options)
    assert_same(run_training(dataset, home=tmp_path, folder="whole", **options), resumed)


def test_a_finished_training_started_again_returns_at_once(
    dataset: Dataset, tmp_path: Path
) -> None:
    first = run_training(dataset, home=tmp_path)
    messages = Messages()
    again = run_training(dataset, home=tmp_path, progress=messages)
    assert again.history == first.history
    assert messages.lines[0].startswith("nothing is left to train: 3 epochs")
    assert_same(first, again)


def test_a_checkpoint_of_other_hyperparameters_is_not_gone_on_from(
    dataset: Dataset, tmp_path: Path
) -> None:
    run_training(dataset, home=tmp_path, epochs=1, warmup_epochs=0)
    messages = Messages()
    result = run_training(dataset, home=tmp_path, epochs=2, progress=messages)
    assert len(result.history) == 2
    assert not any("going on" in line for line in messages.lines)


def test_a_damaged_checkpoint_is_reported_and_not_used(dataset: Dataset, tmp_path: Path) -> None:
    whole = run_training(dataset, home=tmp_path, epochs=2)
    path = tmp_path / "run" / "checkpoint" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    messages = Messages()
    assert_same(whole, run_training(dataset, home=tmp_path, epochs=2, progress=messages))
    assert "damaged" in messages.lines[0]


def test_a_full_disk_ends_the_training_and_keeps_the_earlier_checkpoint(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill_the_disk(epoch: EpochMetrics) -> None:
        monkeypatch.setattr("darkroom.training.checkpoints.save_file", full)

    with pytest.raises(DarkroomError, match=r"cannot write .*checkpoint.*No space left"):
        run_training(dataset, home=tmp_path, on_epoch=fill_the_disk)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "run" / "checkpoint").iterdir()] == [
        "checkpoint.safetensors"
    ]
    messages = Messages()
    run_training(dataset, home=tmp_path, progress=messages)
    assert messages.lines[0] == "going on after epoch 1, from the checkpoint"


def test_a_training_that_no_longer_improves_stops_early(dataset: Dataset, tmp_path: Path) -> None:
    result = run_training(
        dataset, home=tmp_path, epochs=9, learning_rate=1e-9, early_stopping_epochs=2
    )
    assert result.stopped_early
    assert len(result.history) == result.best_epoch + 2


def test_a_diverging_training_says_where_and_what_to_try(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"diverged.*epoch \d.*lower training\.learning_rate"):
        run_training(
            dataset,
            home=tmp_path,
            architecture="squeezenet1_1",
            image_size=32,
            optimizer="sgd",
            learning_rate=10.0,
            gradient_clip=0,
            epochs=9,
        )


@pytest.mark.parametrize(
    "options",
    [
        {"imbalance": "class_weights", "label_smoothing": 0.1},
        {"imbalance": "stratified_sampling", "augmentation": "crop"},
        {"fine_tune": "head", "augmentation": "none"},
    ],
    ids=["weights", "sampling", "head"],
)
def test_the_options_train(dataset: Dataset, tmp_path: Path, options: dict[str, object]) -> None:
    result = run_training(dataset, home=tmp_path, epochs=2, **options)
    assert result.history[1].train_loss < result.history[0].train_loss


def test_data_that_nothing_can_be_learned_from_is_refused_with_all_problems(
    dataset: Dataset, tmp_path: Path
) -> None:
    without = dataset.without(
        [record.path for record in dataset.records if record.split != "test"], reason="test"
    )
    with pytest.raises(UserError, match=r"(?s)no training images.*no validation images"):
        run_training(without, home=tmp_path)
    blue = [record for record in dataset.records if record.label == "blue"]
    with pytest.raises(UserError, match="has 1 class"):
        run_training(make_dataset(blue, root=dataset.root, source="blue"), home=tmp_path)


def test_batches_of_one_image_are_refused_where_batch_norm_needs_two(
    dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"batch_size 1 .* needs 2 or more"):
        run_training(dataset, home=tmp_path, batch_size=1)
    run_training(dataset, home=tmp_path, batch_size=1, fine_tune="head", epochs=1, warmup_epochs=0)


def test_messages_are_name_value_pairs(dataset: Dataset, tmp_path: Path) -> None:
    messages = Messages()
    result = run_training(dataset, home=tmp_path, progress=messages, objective="recall_macro")
    assert messages.lines[2].startswith("epoch=3/3 train_loss=")
    logged = re.search(r"validation_recall_macro=([0-9.e+-]+)", messages.lines[2])
    assert logged
    assert float(logged[1]) == pytest.approx(result.history[2].validation["recall_macro"], abs=1e-3)
    assert "validation_calibration_error=" in result.history[2].log_line()


class Messages(SilentProgress):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)
