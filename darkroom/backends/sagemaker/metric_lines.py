"""Metrics out of log lines: SageMaker's definitions of them, and our own reading."""

import re
from collections.abc import Iterable, Iterator
from typing import TypedDict

from darkroom.training.history import LOGGED, EpochMetrics, kept_values

_NUMBER = r"([-+0-9.eE]+)"


class MetricDefinition(TypedDict):
    """As boto3 takes it."""

    Name: str
    Regex: str


def metric_definitions() -> list[MetricDefinition]:
    """By which SageMaker finds in a log what EpochMetrics.log_line prints."""
    return [MetricDefinition(Name=name, Regex=rf"\b{re.escape(name)}={_NUMBER}") for name in LOGGED]


class EpochReader:
    """Epochs from the lines of one job: each once and in order.

    A job that was interrupted prints the epochs before the interruption again.
    """

    def __init__(self) -> None:
        self.history: list[EpochMetrics] = []
        self.kept: dict[str, float] = {}
        """Validation metrics of the epoch whose weights were kept; empty until it is known."""

    def read(self, lines: Iterable[str]) -> Iterator[EpochMetrics]:
        """The epochs that are new."""
        for line in lines:
            if values := kept_values(line):
                self.kept = values
            elif epoch := EpochMetrics.from_log_line(line):
                yield from self.add([epoch])

    def add(self, epochs: Iterable[EpochMetrics]) -> Iterator[EpochMetrics]:
        """Those of some epochs that are new."""
        for epoch in epochs:
            if not self.history or epoch.epoch > self.history[-1].epoch:
                self.history.append(epoch)
                yield epoch
