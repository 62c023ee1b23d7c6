"""Model package groups, and the model packages in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rehearsal.emulator.errors import invalid
from rehearsal.emulator.state import State, now

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
