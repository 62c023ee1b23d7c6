"""What AWS would refuse, refused here, before anything is done."""

from collections.abc import Iterator, Mapping
from typing import Any

from darkroom.backends.sagemaker.request_rules import problems
from rehearsal.emulator.errors import AwsError, invalid
from rehearsal.emulator.members import check_members
from rehearsal.emulator.operations import operation_named
from rehearsal.emulator.shapes import check_shape
from rehearsal.emulator.state import State

_TARGETS = ("S3OutputPath", "DestinationS3Uri")
_TARGET_HOLDERS = ("CheckpointConfig",)


def check_request(operation: str, request: Mapping[str, Any], *, state: State) -> None:
    """Check a SageMaker request: the service model, AWS's further rules, our members, buckets.

    Raises:
        AwsError: with AWS's code and wording; where several rules are broken, all are told.
    """
    check_shape("sagemaker", operation, request)
    found = problems(operation, request)
    if found:
        raise AwsError(found[0].code, "; ".join(problem.message for problem in found))
    if operation_named(operation):
        check_members(operation, request, state=state)
    if operation.startswith("Create"):
        _check_buckets(request, state=state)


def _check_buckets(request: Mapping[str, Any], *, state: State) -> None:
    """Where results shall go there must be a bucket; missing inputs fail the job instead."""
    for uri in _targets(request):
        bucket = uri.removeprefix("s3://").partition("/")[0]
        if not _exists(bucket, state=state):
            raise invalid(f"Could not access S3 bucket {bucket!r} of {uri!r}: it does not exist")


def _exists(bucket: str, *, state: State) -> bool:
    from botocore.exceptions import ClientError

    try:
        state.clients["s3"].head_bucket(Bucket=bucket)
    except ClientError:
        return False
    return True


def _targets(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, member in value.items():
            if name in _TARGETS and isinstance(member, str):
                yield member
            elif name in _TARGET_HOLDERS and isinstance(member, Mapping):
                yield from (uri for key, uri in member.items() if key == "S3Uri")
            else:
                yield from _targets(member)
