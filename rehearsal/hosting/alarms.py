"""CloudWatch alarms as an update watches them.

moto keeps alarms and never judges one. Here an alarm rings when somebody set its state to
ALARM, or when its metric, over the time that the update has been watching, crosses its
threshold: time is compressed, so the alarm's own periods would never be full.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from rehearsal.emulator.state import State, now

_COMPARISONS = {
    "GreaterThanOrEqualToThreshold": lambda value, bound: value >= bound,
    "GreaterThanThreshold": lambda value, bound: value > bound,
    "LessThanThreshold": lambda value, bound: value < bound,
    "LessThanOrEqualToThreshold": lambda value, bound: value <= bound,
}


def missing_alarms(names: list[str], *, state: State) -> list[str]:
    """Those that CloudWatch does not know."""
    known = {alarm["AlarmName"] for alarm in _described(names, state=state)}
    return [name for name in names if name not in known]


def ringing_alarm(names: list[str], *, since: datetime, state: State) -> str | None:
    """The first alarm that rings; its state becomes ALARM. None: all is well."""
    for alarm in _described(names, state=state):
        if alarm["StateValue"] == "ALARM":
            return str(alarm["AlarmName"])
        if _is_crossed(alarm, since=since, state=state):
            _ring(alarm["AlarmName"], state=state)
            return str(alarm["AlarmName"])
    return None


def _described(names: list[str], *, state: State) -> list[dict[str, Any]]:
    if not names:
        return []
    answer = state.clients["cloudwatch"].describe_alarms(AlarmNames=names)
    return list(answer["MetricAlarms"])


def _ring(name: str, *, state: State) -> None:
    state.clients["cloudwatch"].set_alarm_state(
        AlarmName=name, StateValue="ALARM", StateReason="Threshold crossed (rehearsal)."
    )


def _is_crossed(alarm: Mapping[str, Any], *, since: datetime, state: State) -> bool:
    statistic = alarm.get("Statistic")
    compare = _COMPARISONS.get(alarm["ComparisonOperator"])
    if not statistic or compare is None:
        return False
    points = state.clients["cloudwatch"].get_metric_statistics(
        Namespace=alarm["Namespace"],
        MetricName=alarm["MetricName"],
        Dimensions=alarm.get("Dimensions", []),
        StartTime=since,
        EndTime=now() + timedelta(seconds=1),
        Period=86400,
        Statistics=[statistic],
    )["Datapoints"]
    return any(compare(point[statistic], alarm["Threshold"]) for point in points)
