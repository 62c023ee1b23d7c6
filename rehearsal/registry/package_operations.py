"""The API of the model registry."""

from typing import Any

from rehearsal.emulator.errors import AwsError, invalid
from rehearsal.emulator.listing import cut, is_in_time, page
from rehearsal.emulator.operations import Answer, Request, operation
from rehearsal.emulator.state import State, now
from rehearsal.emulator.tags import keep_tags
from rehearsal.registry.packages import (
    Package,
    PackageGroup,
    group_named,
    package_named,
    packages_of,
)

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
