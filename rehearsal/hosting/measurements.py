"""What SageMaker measures of invocations, put to CloudWatch as it does."""

import queue
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rehearsal.emulator.state import State, now

NAMESPACE = "AWS/SageMaker"

_SECONDS_BETWEEN_LOOKS = 0.5
_METRICS_PER_CALL = 500


@dataclass(frozen=True)
class Invocation:
    """One request, as measured."""

    endpoint: str
    variant: str
    status: int
    """Of the container's answer; 0 where there was none."""
    model_microseconds: float
    time: datetime

    def metrics(self) -> list[dict[str, Any]]:
        """As PutMetricData takes them; the names are of SageMaker's developer guide."""
        counts = {
            "Invocations": 1,
            "Invocation4XXErrors": int(400 <= self.status < 500),
            "Invocation5XXErrors": int(self.status >= 500 or self.status == 0),
        }
        measured = [self._metric(name, value=value, unit="Count") for name, value in counts.items()]
        latency = self._metric("ModelLatency", value=self.model_microseconds, unit="Microseconds")
        return [*measured, latency]

    def _metric(self, name: str, *, value: float, unit: str) -> dict[str, Any]:
        dimensions = {"EndpointName": self.endpoint, "VariantName": self.variant}
        return {
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": text} for key, text in dimensions.items()],
            "Timestamp": self.time,
            "Value": value,
            "Unit": unit,
        }


class Measurements:
    """Takes invocations from the threads that answer them, and writes them from its own."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._waiting: queue.SimpleQueue[Invocation] = queue.SimpleQueue()
        state.start(self._write_all, name="measurements")

    def note(self, endpoint: str, *, variant: str, status: int, seconds: float) -> None:
        """Take in how a request was answered."""
        self._waiting.put(Invocation(endpoint, variant, status, seconds * 1e6, now()))

    def _write_all(self) -> None:
        while not self._state.ending.is_set():
            try:
                metrics = self._waiting.get(timeout=_SECONDS_BETWEEN_LOOKS).metrics()
            except queue.Empty:
                continue
            while not self._waiting.empty() and len(metrics) < _METRICS_PER_CALL:
                metrics += self._waiting.get().metrics()
            self._state.clients["cloudwatch"].put_metric_data(
                Namespace=NAMESPACE, MetricData=metrics
            )


def measurements(state: State) -> Measurements:
    """The one of this emulator."""
    with state.lock:
        kept = state.kept(Measurements)
        if "all" not in kept:
            kept["all"] = Measurements(state)
        return kept["all"]
