"""Credentials, regions and connections: what every AWS service complains about, explained."""

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
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from darkroom.errors import DarkroomError, UserError

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
