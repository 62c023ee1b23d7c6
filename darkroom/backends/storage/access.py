"""Credentials, regions and connections: what every AWS service complains about, explained."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from darkroom.base.errors import DarkroomError, UserError

# --- aws access ---

EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
"""Codes of credentials that were good; newer ones may be there to be read."""
_BAD_CREDENTIALS = EXPIRED | {
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_CREDENTIAL_ERRORS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    SSOError,
    TokenRetrievalError,
)
_LOG_IN = "Log in (aws configure, aws sso login, or AWS_PROFILE) and check AWS_ENDPOINT_URL if set."


def error_code(error: ClientError) -> str:
    """The service's name of an error, such as 'NoSuchKey'; a number where it has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def access_problem(error: Exception, *, subject: str, service: str) -> DarkroomError | None:
    """The error to raise where AWS could not be asked at all; None: it could.

    Args:
        subject: what was asked about, ready to stand in a sentence.
        service: 'S3', 'SageMaker', …
    """
    if isinstance(error, ClientError):
        code = error_code(error)
        if code not in _BAD_CREDENTIALS:
            return None
        return UserError(f"AWS does not accept the credentials for {subject} ({code}). {_LOG_IN}")
    if isinstance(error, ProfileNotFound):
        return UserError(f"{subject}: {error}. Set AWS_PROFILE to one that ~/.aws/config has.")
    if isinstance(error, _CREDENTIAL_ERRORS):
        return UserError(f"{subject} needs AWS credentials: {error} {_LOG_IN}")
    if isinstance(error, NoRegionError):
        return UserError(f"{subject} needs a region: set AWS_REGION or AWS_DEFAULT_REGION.")
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError | HTTPClientError):
        return DarkroomError(
            f"{service} cannot be reached for {subject}: {error}. "
            "Check the network and AWS_ENDPOINT_URL."
        )
    return None


def caller() -> str:
    """Who AWS takes us for, or a plain word where it will not say."""
    quick = Config(connect_timeout=3, read_timeout=3, retries={"total_max_attempts": 1})
    try:
        return repr(boto3.client("sts", config=quick).get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError):
        return "the caller"


# --- s3 errors ---
# What S3 and boto3 complain about, said so that the user knows what to change.

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
