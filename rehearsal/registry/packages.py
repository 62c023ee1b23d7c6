"""The API of the model registry."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rehearsal.emulator.errors import AwsError, invalid, not_executed
from rehearsal.emulator.operations import Answer, Request, cut, is_in_time, operation, page
from rehearsal.emulator.state import State, now
from rehearsal.emulator.tags import keep_tags
from rehearsal.hosting.endpoints import Endpoint
from rehearsal.jobs import training_job
from rehearsal.tuning.jobs import TuningJob, describe_tuning

# --- packages ---
# Model package groups, and the model packages in them.

_NOT_SHOWN = ("Tags", "ClientToken", "SkipModelValidation", "ModelPackageName")
_PENDING = "PendingManualApproval"


@dataclass
class PackageGroup:
    """One model package group."""

    request: Mapping[str, Any]
    arn: str
    created: datetime = field(default_factory=now)
    versions: int = 0
    """How many there ever were; the numbers of deleted ones are not used again."""

    @property
    def name(self) -> str:
        return str(self.request["ModelPackageGroupName"])

    def summary(self) -> dict[str, Any]:
        """Its entry in ListModelPackageGroups."""
        found = {
            "ModelPackageGroupName": self.name,
            "ModelPackageGroupArn": self.arn,
            "CreationTime": self.created,
            "ModelPackageGroupStatus": "Completed",
        }
        described = self.request.get("ModelPackageGroupDescription")
        return found | ({"ModelPackageGroupDescription": described} if described else {})


@dataclass
class Package:
    """A model package: a version of a group, or one with a name of its own."""

    content: dict[str, Any]
    """The request, as updates have changed it."""
    arn: str
    name: str
    version: int | None = None
    created: datetime = field(default_factory=now)
    modified: datetime | None = None

    @property
    def group(self) -> str:
        """Name of its group; empty where it is in none."""
        return str(self.content.get("ModelPackageGroupName", ""))

    @property
    def approval(self) -> str:
        """ModelApprovalStatus."""
        return str(self.content.get("ModelApprovalStatus", _PENDING))

    def summary(self) -> dict[str, Any]:
        """Its entry in ListModelPackages."""
        found: dict[str, Any] = {
            "ModelPackageArn": self.arn,
            "CreationTime": self.created,
            "ModelPackageStatus": "Completed",
        }
        if self.version is None:
            found["ModelPackageName"] = self.name
        else:
            found |= {
                "ModelPackageGroupName": self.group,
                "ModelPackageVersion": self.version,
                "ModelApprovalStatus": self.approval,
            }
        described = self.content.get("ModelPackageDescription")
        return found | ({"ModelPackageDescription": described} if described else {})

    def description(self) -> dict[str, Any]:
        """The answer of DescribeModelPackage."""
        kept = {key: value for key, value in self.content.items() if key not in _NOT_SHOWN}
        modified = {"LastModifiedTime": self.modified} if self.modified else {}
        return {
            **kept,
            "ModelPackageName": self.name,
            **self.summary(),
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            **modified,
        }


def group_named(name: str, *, state: State) -> PackageGroup:
    """By name or ARN. Raises AwsError where there is none."""
    group = state.kept(PackageGroup).get(name.rpartition("/")[2])
    if group is None:
        arn = state.arn("model-package-group", name)
        raise invalid(f"ModelPackageGroup {arn} does not exist.")
    return group


def package_named(name: str, *, state: State) -> Package:
    """By ARN, or by the name of an unversioned one. Raises AwsError where there is none."""
    arn = name if name.startswith("arn:") else state.arn("model-package", name)
    package = state.kept(Package).get(arn)
    if package is None:
        raise invalid(f"ModelPackage {arn} does not exist.")
    return package


def packages_of(group: PackageGroup, *, state: State) -> list[Package]:
    """Its versions, oldest first."""
    return [each for each in list(state.kept(Package).values()) if each.group == group.name]


# --- package operations ---

_UPDATED = (
    "ModelApprovalStatus",
    "ApprovalDescription",
    "InferenceSpecification",
    "SourceUri",
    "ModelCard",
    "ModelLifeCycle",
)


@operation("CreateModelPackageGroup")
def create_group(request: Request, *, state: State) -> Answer:
    """Make a group."""
    name = request["ModelPackageGroupName"]
    group = PackageGroup(request, arn=state.arn("model-package-group", name))
    with state.lock:
        if name in state.kept(PackageGroup):
            raise invalid(f"Model Package Group already exists: {group.arn}")
        state.kept(PackageGroup)[name] = group
    keep_tags(group.arn, request.get("Tags", []), state=state)
    return {"ModelPackageGroupArn": group.arn}


@operation("DescribeModelPackageGroup")
def describe_group(request: Request, *, state: State) -> Answer:
    """Show a group."""
    group = group_named(request["ModelPackageGroupName"], state=state)
    return {**group.summary(), "CreatedBy": {}}


@operation("ListModelPackageGroups")
def list_groups(request: Request, *, state: State) -> Answer:
    """Show all groups."""
    rows = [group.summary() for group in list(state.kept(PackageGroup).values())]
    return page(rows, request=request, key="ModelPackageGroupSummaryList", kind="ModelPackageGroup")


@operation("DeleteModelPackageGroup")
def delete_group(request: Request, *, state: State) -> Answer:
    """Forget a group that is empty."""
    with state.lock:
        group = group_named(request["ModelPackageGroupName"], state=state)
        if packages_of(group, state=state):
            raise AwsError(
                "ConflictException",
                f"Model Package Group {group.arn} contains Model Packages; delete these first.",
            )
        state.kept(PackageGroup).pop(group.name)
        state.forget_tags(group.arn)
    return {}


@operation("CreateModelPackage")
def create_package(request: Request, *, state: State) -> Answer:
    """Register a model: the next version of its group, or by a name of its own."""
    name, group_name = request.get("ModelPackageName"), request.get("ModelPackageGroupName")
    if bool(name) == bool(group_name):
        raise invalid("Give either ModelPackageName or ModelPackageGroupName.")
    with state.lock:
        package = (
            _next_version(request, state=state)
            if group_name
            else _unversioned(request, state=state)
        )
        state.kept(Package)[package.arn] = package
    keep_tags(package.arn, request.get("Tags", []), state=state)
    return {"ModelPackageArn": package.arn}


@operation("DescribeModelPackage")
def describe_package(request: Request, *, state: State) -> Answer:
    """Show a model package."""
    return package_named(request["ModelPackageName"], state=state).description()


@operation("ListModelPackages")
def list_packages(request: Request, *, state: State) -> Answer:
    """Show model packages: of a group, or by default those without one."""
    group = request.get("ModelPackageGroupName")
    if group:
        found = packages_of(group_named(group, state=state), state=state)
    else:
        kind = request.get("ModelPackageType", "Unversioned")
        found = [each for each in list(state.kept(Package).values()) if _is_of(each, kind=kind)]
    wanted = request.get("ModelApprovalStatus")
    rows = [
        each.summary()
        for each in found
        if wanted in (None, each.approval) and request.get("NameContains", "") in each.name
    ]
    chosen = [row for row in rows if is_in_time(row, request, field="CreationTime")]
    # They are in the order of their creation.
    if request.get("SortBy") == "Name":
        chosen.sort(key=lambda row: row["ModelPackageArn"])
    if request.get("SortOrder") == "Descending":
        chosen.reverse()
    return cut(chosen, request=request, key="ModelPackageSummaryList")


@operation("UpdateModelPackage")
def update_package(request: Request, *, state: State) -> Answer:
    """Change what is given; the rest stays."""
    with state.lock:
        package = package_named(request["ModelPackageArn"], state=state)
        content = package.content
        content |= {key: request[key] for key in _UPDATED if key in request}
        properties = {
            **content.get("CustomerMetadataProperties", {}),
            **request.get("CustomerMetadataProperties", {}),
        }
        for key in request.get("CustomerMetadataPropertiesToRemove", []):
            properties.pop(key, None)
        if properties:
            content["CustomerMetadataProperties"] = properties
        package.modified = now()
    return {"ModelPackageArn": package.arn}


@operation("DeleteModelPackage")
def delete_package(request: Request, *, state: State) -> Answer:
    """Forget a model package."""
    with state.lock:
        package = package_named(request["ModelPackageName"], state=state)
        state.kept(Package).pop(package.arn)
        state.forget_tags(package.arn)
    return {}


def _next_version(request: Request, *, state: State) -> Package:
    group = group_named(request["ModelPackageGroupName"], state=state)
    group.versions += 1
    content: dict[str, Any] = {**request, "ModelPackageGroupName": group.name}
    arn = state.arn("model-package", f"{group.name}/{group.versions}")
    return Package(content, arn=arn, name=group.name, version=group.versions)


def _unversioned(request: Request, *, state: State) -> Package:
    name = request["ModelPackageName"]
    arn = state.arn("model-package", name)
    if arn in state.kept(Package):
        raise invalid(f"Model Package already exists: {arn}")
    return Package(dict(request), arn=arn, name=name)


def _is_of(package: Package, *, kind: str) -> bool:
    return kind == "Both" or (package.version is not None) == (kind == "Versioned")


# --- search ---
# Search: what the emulator keeps, by its properties.
#
# SDKs ask it which training job made a model, and whether a model package group exists.

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
