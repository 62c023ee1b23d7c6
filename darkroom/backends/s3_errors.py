"""What S3 and boto3 complain about, said so that the user knows what to change."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
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
_BAD_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_WRONG_REGION = frozenset(
    {
        "301",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
    }
)
_CREDENTIAL_ERRORS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    SSOError,
    TokenRetrievalError,
)
_LOG_IN = "Log in (aws configure, aws sso login, or AWS_PROFILE) and check AWS_ENDPOINT_URL if set."


@contextmanager
def s3_errors_explained(uri: str) -> Iterator[None]:
    """Turn what boto3 raises while it works on a URI into errors that say what to do."""
    try:
        yield
    except ClientError as error:
        raise _client_problem(error, uri=uri) from error
    except ProfileNotFound as error:
        raise UserError(
            f"{uri!r}: {error}. Set AWS_PROFILE to one that ~/.aws/config has."
        ) from error
    except _CREDENTIAL_ERRORS as error:
        raise UserError(f"{uri!r} needs AWS credentials: {error} {_LOG_IN}") from error
    except NoRegionError as error:
        raise UserError(f"{uri!r} needs a region: set AWS_REGION or AWS_DEFAULT_REGION.") from error
    except ParamValidationError as error:
        raise UserError(f"{uri!r} is no valid S3 address. Write s3://bucket/prefix.") from error
    except (EndpointConnectionError, HTTPClientError) as error:
        raise DarkroomError(
            f"S3 cannot be reached for {uri!r}: {error}. Check the network and AWS_ENDPOINT_URL."
        ) from error
    except BotoCoreError as error:
        raise DarkroomError(f"S3 failed for {uri!r}: {error}.") from error


def error_code(error: ClientError) -> str:
    """S3's name of an error, such as 'NoSuchKey'; a number where it has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _client_problem(error: ClientError, *, uri: str) -> DarkroomError:
    code = error_code(error)
    if code == "NoSuchBucket":
        return UserError(f"the bucket of {uri!r} does not exist. Check its name and the account.")
    if code == "InvalidBucketName":
        return UserError(f"{uri!r} does not name a valid bucket. Write s3://bucket/prefix.")
    if code in _DENIED:
        return UserError(_denied_message(error.operation_name, uri=uri))
    if code in _BAD_CREDENTIALS:
        return UserError(f"AWS does not accept the credentials for {uri!r} ({code}). {_LOG_IN}")
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
        f"{uri!r} may not be accessed: {_caller()} lacks {action!r} on 'arn:aws:s3:::{resource}'. "
        "Ask for that permission, or use other credentials (AWS_PROFILE)."
    )


def _caller() -> str:
    """Who AWS takes us for, or a plain word where it will not say."""
    quick = Config(connect_timeout=3, read_timeout=3, retries={"total_max_attempts": 1})
    try:
        return repr(boto3.client("sts", config=quick).get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError):
        return "the caller"
