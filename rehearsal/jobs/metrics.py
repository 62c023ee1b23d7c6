"""Metrics read out of a job's log, by the regular expressions of its MetricDefinitions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rehearsal.emulator.state import now


@dataclass(frozen=True)
class MetricPoint:
    """One value of a metric."""

    name: str
    value: float
    time: datetime


class MetricReader:
    """Finds metrics in lines of a log."""

    def __init__(self, definitions: Sequence[Mapping[str, str]]) -> None:
        self._patterns = [(d["Name"], re.compile(d["Regex"])) for d in definitions]

    def read(self, line: str) -> list[MetricPoint]:
        """All values in a line, in the order of the definitions.

        The first group of the expression is the value; what is no number is no metric.
        """
        found = []
        for name, pattern in self._patterns:
            for match in pattern.finditer(line):
                value = _number(match)
                if value is not None:
                    found.append(MetricPoint(name, value, now()))
        return found


def last_values(points: Sequence[MetricPoint]) -> list[dict[str, Any]]:
    """FinalMetricDataList: the last value of each metric."""
    last = {point.name: point for point in points}
    return [
        {"MetricName": point.name, "Value": point.value, "Timestamp": point.time}
        for point in last.values()
    ]


def _number(match: "re.Match[str]") -> float | None:
    text = match.group(1) if match.re.groups else match.group(0)
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
