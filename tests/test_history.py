"""What follows from the epochs' metrics."""

import pytest

from darkroom.config import Metric
from darkroom.training.history import EpochMetrics, best_epoch, is_exhausted


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


def test_a_log_line_holds_every_metric_as_a_name_value_pair() -> None:
    (epoch,) = epochs(0.123456)
    assert epoch.log_line() == (
        "epoch=1 learning_rate=0.001 train_loss=0.5 train_accuracy=0.5 "
        "validation_accuracy=0.1235 validation_log_loss=0.1235 images_per_second=183.4"
    )
