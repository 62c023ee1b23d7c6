"""What many requests share: volumes, and the rules for tags, roles, URIs and networks."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# --- problem ---
# One broken rule.

VALIDATION = "ValidationException"


@dataclass(frozen=True)
class RuleProblem:
    """Why AWS would refuse a request."""

    message: str
    code: str = VALIDATION
    """AWS's error code."""


# --- members ---
# Rules for members that many requests have, wherever they stand.

_MAX_TAGS = 50
"""Per resource. https://docs.aws.amazon.com/tag-editor/latest/userguide/tagging.html"""
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html"""
_MAX_KEY = 1024
_ROLE_MEMBERS = ("RoleArn", "ExecutionRoleArn")
_URI_MEMBERS = (
    "S3Uri",
    "S3OutputPath",
    "ModelDataUrl",
    "DestinationS3Uri",
    "S3ModelArtifacts",
)


def tags_of(request: Mapping[str, Any]) -> Iterator[RuleProblem]:
    """At most 50, each key once, none of AWS's own."""
    tags = request.get("Tags", ())
    keys = [tag["Key"] for tag in tags if isinstance(tag, Mapping) and "Key" in tag]
    if len(keys) > _MAX_TAGS:
        yield RuleProblem(f"{len(keys)} tags: a resource may have {_MAX_TAGS}")
    for key in repeated(keys):
        yield RuleProblem(f"Duplicate tag keys found: the key {key!r} stands there twice")
    for key in keys:
        if key.lower().startswith("aws:"):
            yield RuleProblem(f"the tag key {key!r} begins with 'aws:', which is AWS's own")


def roles_of(request: Mapping[str, Any]) -> Iterator[RuleProblem]:
    """Role ARNs are those of IAM roles."""
    for place, arn in _members(request, names=_ROLE_MEMBERS, place=""):
        if not _ROLE.fullmatch(arn):
            yield RuleProblem(
                f"Invalid role ARN {arn!r} at {place}: it has the form "
                "arn:aws:iam::<12 digits>:role/<name>"
            )


def uris_of(request: Mapping[str, Any]) -> Iterator[RuleProblem]:
    """S3 URIs name a possible bucket and key."""
    for place, uri in _members(request, names=_URI_MEMBERS, place=""):
        if problem := uri_problem(uri):
            yield RuleProblem(f"Invalid S3 URI {uri!r} at {place}: {problem}")


def uri_problem(uri: str) -> str:
    """What is wrong with an s3:// (or https://) URI; empty where nothing is."""
    if uri.startswith("https://"):
        return ""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not separator:
        return "it must begin with s3://"
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        return f"{bucket!r} is no name of a bucket"
    if len(key.encode()) > _MAX_KEY:
        return f"the key is longer than {_MAX_KEY} bytes"
    return ""


def repeated(values: Iterable[Hashable]) -> list[Any]:
    """The values that stand there more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def vpc_problems(request: Mapping[str, Any]) -> Iterator[RuleProblem]:
    """Subnets and security groups are named once."""
    vpc = request.get("VpcConfig") or {}
    for member in ("Subnets", "SecurityGroupIds"):
        for value in repeated(vpc.get(member, ())):
            yield RuleProblem(f"VpcConfig.{member} names {value!r} twice")


def _members(value: object, *, names: tuple[str, ...], place: str) -> Iterator[tuple[str, str]]:
    """Place and text of all members with one of the names, at any depth."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            below = f"{place}.{name}" if place else str(name)
            if name in names and isinstance(member, str):
                yield below, member
            else:
                yield from _members(member, names=names, place=below)
    elif isinstance(value, list | tuple):
        for number, member in enumerate(value):
            yield from _members(member, names=names, place=f"{place}[{number}]")


# --- volumes ---

_LOCAL_STORAGE = re.compile(r"ml\.([a-z]+\d+[a-z]*d[a-z]*|g5|g6|g6e|p5|p5e|trn1)\.")
"""Instances with disks of their own, encrypted by hardware: AWS refuses a KMS key for them.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
"""


def volume_key(instance_type: str, *, key: str) -> str:
    """The key where the disks of such a machine take one; else, and where there is none, empty."""
    return "" if has_own_disks(instance_type) else key


def has_own_disks(instance_type: str) -> bool:
    """Whether a machine has disks of its own, whose size nobody chooses."""
    return bool(_LOCAL_STORAGE.match(instance_type))
