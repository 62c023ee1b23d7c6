"""What S3 and boto3 complain about, said so that the user knows what to change."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from darkroom.backends.aws_access import access_problem, caller, error_code
from darkroom.errors import DarkroomError, UserError

_PERMISSIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
}
"""API operation to the IAM action that allows it."""

_DENIED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled"})
_WRONG_REGION = frozenset(
    {
        "301",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
    }
)


@contextmanager
def s3_errors_explained(uri: str) -> Iterator[None]:
    """Turn what boto3 raises while it works on a URI into errors that say what to do."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise _problem(error, uri=uri) from error


def _problem(error: ClientError | BotoCoreError, *, uri: str) -> DarkroomError:
    if problem := access_problem(error, subject=repr(uri), service="S3"):
        return problem
    if isinstance(error, ClientError):
        return _client_problem(error, uri=uri)
    if isinstance(error, ParamValidationError):
        return UserError(f"{uri!r} is no valid S3 address. Write s3://bucket/prefix.")
    return DarkroomError(f"S3 failed for {uri!r}: {error}.")


def _client_problem(error: ClientError, *, uri: str) -> DarkroomError:
    code = error_code(error)
    if code == "NoSuchBucket":
        return UserError(f"the bucket of {uri!r} does not exist. Check its name and the account.")
    if code == "InvalidBucketName":
        return UserError(f"{uri!r} does not name a valid bucket. Write s3://bucket/prefix.")
    if code in _DENIED:
        return UserError(_denied_message(error.operation_name, uri=uri))
    if code in _WRONG_REGION:
        return UserError(f"the bucket of {uri!r} lies in another region. Set AWS_REGION to that.")
    if code in ("404", "NoSuchKey", "PreconditionFailed", "412"):
        return UserError(f"{uri!r} was changed or removed while it was read. Run it again.")
    return DarkroomError(f"S3 failed for {uri!r}: {error}.")


def _denied_message(operation: str, *, uri: str) -> str:
    action = _PERMISSIONS.get(operation, operation)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    resource = bucket if action == "s3:ListBucket" else f"{bucket}/{key}"
    return (
        f"{uri!r} may not be accessed: {caller()} lacks {action!r} on 'arn:aws:s3:::{resource}'. "
        "Ask for that permission, or use other credentials (AWS_PROFILE)."
    )
