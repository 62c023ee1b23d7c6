"""Search: what the emulator keeps, by its properties.

SDKs ask it which training job made a model, and whether a model package group exists.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rehearsal.emulator.errors import not_executed
from rehearsal.emulator.listing import cut
from rehearsal.emulator.operations import Answer, Request, operation
from rehearsal.emulator.state import State
from rehearsal.hosting.endpoints import Endpoint
from rehearsal.jobs import training_job
from rehearsal.registry.packages import Package, PackageGroup
from rehearsal.tuning.jobs import TuningJob, describe_tuning

Found = Mapping[str, Any]
_STANDARD_ORDER = "LastModifiedTime"
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "Equals": lambda value, wanted: value == wanted,
    "GreaterThan": lambda value, wanted: value > wanted,
    "GreaterThanOrEqualTo": lambda value, wanted: value >= wanted,
    "LessThan": lambda value, wanted: value < wanted,
    "LessThanOrEqualTo": lambda value, wanted: value <= wanted,
}


@operation("Search")
def search(request: Request, *, state: State) -> Answer:
    """Show what satisfies an expression."""
    resource = request["Resource"]
    expression = request.get("SearchExpression", {})
    with state.lock:
        found = [each for each in _all(resource, state=state) if _satisfies(each, expression)]
    order = request.get("SortBy", _STANDARD_ORDER)
    found.sort(
        key=lambda each: _sort_key(each, order=order),
        reverse=request.get("SortOrder", "Descending") == "Descending",
    )
    return cut([{resource: each} for each in found], request=request, key="Results")


def _all(resource: str, *, state: State) -> list[Found]:
    """Descriptions of all of a kind, with their tags. Raises AwsError for other kinds."""
    described: list[Found]
    if resource == "TrainingJob":
        jobs = state.kept(training_job.TrainingJob).values()
        described = [training_job.describe(each, state=state) for each in jobs]
    elif resource == "HyperParameterTuningJob":
        searches = state.kept(TuningJob).values()
        described = [describe_tuning(each, state=state) for each in searches]
    elif resource == "Endpoint":
        described = [each.description() for each in state.kept(Endpoint).values()]
    elif resource == "ModelPackage":
        described = [each.description() for each in state.kept(Package).values()]
    elif resource == "ModelPackageGroup":
        described = [each.summary() for each in state.kept(PackageGroup).values()]
    else:
        raise not_executed(f"Search for {resource}", why="nothing of that kind is searched here")
    return [{**each, "Tags": _tags(each[f"{resource}Arn"], state=state)} for each in described]


def _tags(arn: str, *, state: State) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in state.tags(arn).items()]


def _satisfies(found: Found, expression: Mapping[str, Any]) -> bool:
    """Whether it satisfies an expression; an empty one is satisfied by all."""
    parts = [
        *(_passes(found, each) for each in expression.get("Filters", ())),
        *(_passes_nested(found, each) for each in expression.get("NestedFilters", ())),
        *(_satisfies(found, each) for each in expression.get("SubExpressions", ())),
    ]
    return any(parts) if parts and expression.get("Operator") == "Or" else all(parts)


def _passes_nested(found: Found, nested: Mapping[str, Any]) -> bool:
    """Whether one and the same element of a list passes all filters."""
    prefix = f"{nested['NestedPropertyName']}."
    filters = [{**each, "Name": each["Name"].removeprefix(prefix)} for each in nested["Filters"]]
    elements = _values(found, nested["NestedPropertyName"])
    return any(all(_passes(element, each) for each in filters) for element in elements)


def _passes(found: Found, filter_: Mapping[str, str]) -> bool:
    values = list(_values(found, filter_["Name"]))
    operator, wanted = filter_.get("Operator", "Equals"), filter_.get("Value", "")
    if operator in ("Exists", "NotExists"):
        return bool(values) == (operator == "Exists")
    if operator == "NotEquals":
        return not any(_compares(each, "Equals", wanted) for each in values)
    if operator == "In":
        return any(_compares(e, "Equals", w) for e in values for w in wanted.split(","))
    if operator == "Contains":
        return any(wanted.lower() in str(each).lower() for each in values)
    return any(_compares(each, operator, wanted) for each in values)


def _compares(value: object, operator: str, wanted: str) -> bool:
    """Compare as what the value is: a time, a number, or a text."""
    compare = _COMPARISONS[operator]
    try:
        if isinstance(value, datetime):
            return compare(value, _moment(wanted))
        return compare(float(str(value)), float(wanted))
    except ValueError:
        return compare(str(value), wanted)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _values(found: object, name: str) -> Iterator[Any]:
    """The values of a property, such as ModelArtifacts.S3ModelArtifacts, Tags.owner."""
    if isinstance(found, Mapping):
        for key, value in _named(found).items():
            if name == key:
                yield from value if isinstance(value, list) else [value]
            elif name.startswith(f"{key}."):
                yield from _values(value, name.removeprefix(f"{key}."))
    elif isinstance(found, list):
        for each in found:
            yield from _values(each, name)


def _named(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what expressions name otherwise: tags by their keys, metrics by their names."""
    metrics = {each["MetricName"]: each["Value"] for each in found.get("FinalMetricDataList", ())}
    tags = found.get("Tags", ())
    named = {"Tags": {each["Key"]: each["Value"] for each in tags}} if tags else {}
    return {**found, **named, **({"Metrics": metrics} if metrics else {})}


def _sort_key(found: Found, *, order: str) -> tuple[bool, Any]:
    """What lacks the property comes last in the standard, descending order."""
    values: Iterable[Any] = _values(found, order)
    value = next(iter(values), None)
    if value is None and order == _STANDARD_ORDER:
        value = found.get("CreationTime")
    return (value is not None, value if isinstance(value, datetime | int | float) else str(value))
