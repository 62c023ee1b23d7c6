"""What follows from the epochs' metrics."""

from pathlib import Path
from typing import get_args

import pytest

from darkroom.config.sections import Metric
from darkroom.telemetry.epochs import (
    LOGGED,
    EpochMetrics,
    best_epoch,
    is_exhausted,
    kept_values,
    read_history,
    write_history,
)


def epochs(*accuracies: float) -> list[EpochMetrics]:
    return [
        EpochMetrics(
            epoch=number,
            learning_rate=0.001,
            train_loss=0.5,
            train_accuracy=0.5,
            validation={"accuracy": value, "log_loss": value},
            images_per_second=183.4,
            seconds=1,
        )
        for number, value in enumerate(accuracies, start=1)
    ]


@pytest.mark.parametrize(
    ("objective", "values", "best"),
    [
        ("accuracy", (0.1, 0.3, 0.2), 2),
        ("log_loss", (0.1, 0.3, 0.2), 1),
        ("accuracy", (0.3, 0.3), 1),
        ("accuracy", (0.0,), 1),
    ],
)
def test_the_best_epoch_follows_the_objective_and_is_the_first_of_equals(
    objective: Metric, values: tuple[float, ...], best: int
) -> None:
    assert best_epoch(epochs(*values), objective=objective) == best


@pytest.mark.parametrize(
    ("values", "patience", "exhausted"),
    [
        ((0.5, 0.4), 2, False),
        ((0.5, 0.4, 0.3), 2, True),
        ((0.5, 0.4, 0.6), 2, False),
        ((0.5, 0.4, 0.3), 0, False),
        ((), 1, False),
    ],
)
def test_patience_is_counted_from_the_best_epoch(
    values: tuple[float, ...], patience: int, exhausted: bool
) -> None:
    history = epochs(*values)
    assert is_exhausted(history, objective="accuracy", patience=patience) is exhausted


@pytest.mark.parametrize(("warmup", "exhausted"), [(0, True), (1, True), (1.5, False), (3, False)])
def test_patience_does_not_count_the_warm_up(warmup: float, exhausted: bool) -> None:
    history = epochs(0.5, 0.4, 0.3)
    found = is_exhausted(history, objective="accuracy", patience=2, warmup_epochs=warmup)
    assert found is exhausted
    longer = epochs(0.5, 0.4, 0.3, 0.2, 0.1)
    assert is_exhausted(longer, objective="accuracy", patience=2, warmup_epochs=warmup)


def test_a_log_line_holds_every_metric_as_a_name_value_pair() -> None:
    (epoch,) = epochs(0.123456)
    assert epoch.log_line() == (
        "epoch=1 learning_rate=0.001 train_loss=0.5 train_accuracy=0.5 "
        "validation_accuracy=0.123456 validation_log_loss=0.123456 images_per_second=183.4 "
        "seconds=1"
    )


def test_the_names_of_a_log_line_are_known_beforehand() -> None:
    (epoch,) = epochs(0.5)
    everything = epoch.model_copy(update={"validation": dict.fromkeys(get_args(Metric), 0.5)})
    names = [pair.partition("=")[0] for pair in everything.log_line().split()]
    assert names == ["epoch", *LOGGED]


def test_a_log_line_is_read_back() -> None:
    (epoch,) = epochs(1 / 3)
    read = EpochMetrics.from_log_line(epoch.log_line())
    assert read is not None
    assert read.validation == pytest.approx(epoch.validation, rel=1e-9)
    assert read.model_copy(update={"validation": epoch.validation}) == epoch


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Traceback (most recent call last):",
        "epoch=1",
        "epoch=1/3 train_loss=0.5",
        "epoch=1 learning_rate=0.001 train_lo",
        "epoch=1 of 3",
        "epoch=x learning_rate=0.001",
    ],
)
def test_other_lines_are_no_epochs(line: str) -> None:
    assert EpochMetrics.from_log_line(line) is None


def test_the_kept_epoch_is_told_apart_from_the_epochs() -> None:
    (epoch,) = epochs(0.25)
    line = epoch.kept_line()
    assert line == "best_epoch=1 validation_accuracy=0.25 validation_log_loss=0.25"
    assert EpochMetrics.from_log_line(line) is None
    assert kept_values(line) == epoch.validation
    assert kept_values(epoch.log_line()) is None
    assert kept_values("best_epoch=1 validation_acc") is None


def test_a_history_is_read_back_exactly(tmp_path: Path) -> None:
    history = epochs(1 / 3, 2 / 3)
    write_history(tmp_path / "history.json", history, objective="accuracy")
    assert read_history((tmp_path / "history.json").read_text()) == history
