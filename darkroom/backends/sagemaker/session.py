"""Clients of boto3, the account and role they work for, and explanations of AWS's errors."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from darkroom.backends.storage.access import access_problem, error_code
from darkroom.base.errors import DarkroomError, UserError
from darkroom.config.sagemaker import SageMakerConfig

if TYPE_CHECKING:
    from mypy_boto3_application_autoscaling import ApplicationAutoScalingClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_pricing import PricingClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_sts import STSClient


# --- aws errors ---
# What SageMaker and its neighbours complain about, said so that the user can act on it.

THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_QUOTA = frozenset({"LimitExceededException", "ResourceLimitExceeded", "ServiceQuotaExceeded"})


@contextmanager
def aws_errors_explained(what: str) -> Iterator[None]:
    """Turn what boto3 raises while it works on `what` into errors that say what to do.

    Args:
        what: such as "training job 'x'", ready to begin a sentence.
    """
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise explained(error, what=what) from error


def explained(error: ClientError | BotoCoreError, *, what: str) -> DarkroomError:
    """The error to raise in place of boto3's."""
    if problem := access_problem(error, subject=what, service="AWS"):
        return problem
    if isinstance(error, ClientError):
        return _client_problem(error, what=what)
    if isinstance(error, ParamValidationError):
        return DarkroomError(f"{what}: the request is malformed: {error}")
    return DarkroomError(f"{what}: AWS failed: {error}")


def is_missing(error: ClientError) -> bool:
    """Whether a resource that was asked about does not exist.

    SageMaker says it in several ways, among them a ValidationException.
    """
    code, message = error_code(error), _message(error)
    if code in ("ResourceNotFound", "ResourceNotFoundException", "404", "NoSuchKey", "NotFound"):
        return True
    said = ("could not find", "not found", "does not exist", "no scalable target found")
    return code == "ValidationException" and any(words in message.lower() for words in said)


def is_taken(error: ClientError) -> bool:
    """Whether the name of what was to be created is in use already."""
    code, message = error_code(error), _message(error)
    if code in ("ResourceInUse", "ConflictException", "ResourceInUseException"):
        return True
    return code == "ValidationException" and "already exist" in message.lower()


def _client_problem(error: ClientError, *, what: str) -> DarkroomError:
    code, message = error_code(error), _message(error)
    operation = error.operation_name
    if code in _DENIED:
        return UserError(
            f"{what}: {operation} is not allowed: {message}. "
            "Ask for that permission (docs/sagemaker.md lists all), or use other credentials."
        )
    if code in _QUOTA:
        return UserError(
            f"{what}: a quota of the account is used up: {message}. Ask for more under Service "
            "Quotas, stop what runs (run.py endpoints and down, --stack sagemaker), or use another "
            "instance type."
        )
    if code in THROTTLED:
        return DarkroomError(
            f"{what}: AWS keeps asking to slow down ({code} at {operation}). "
            "Run the same command again: it goes on where it was."
        )
    if code == "ValidationException":
        return UserError(f"{what}: AWS refuses {operation}: {message}")
    if is_missing(error):
        return UserError(f"{what} does not exist ({operation}: {message})")
    return DarkroomError(f"{what}: {operation} failed: {code}: {message}")


def _message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", "")).rstrip(".")


# --- site ---
# Where managed jobs run, and under whose permissions.

_REQUIRED = ("AWS_REGION", "DARKROOM_ROLE_ARN", "DARKROOM_S3_ROOT")


@dataclass(frozen=True)
class SageMakerContext:
    """What every request to SageMaker needs to know of the account."""

    region: str
    role: str
    """ARN of the execution role of training and tuning jobs."""
    image: str
    """URI of the image that holds darkroom: it trains, tunes and hosts."""
    root: str
    """s3://bucket/prefix below which everything lies; no slash at its end."""
    config: SageMakerConfig = field(default_factory=SageMakerConfig)
    endpoint_role: str = ""
    """ARN of the role of endpoints and batch transforms, which may do less; empty: `role`."""
    run: str = ""
    """Name of the pipeline run, a tag of all that it creates."""
    fresh: str = ""
    """Part of every job's identity where results of earlier runs are not to be reused."""

    def uri(self, *parts: str) -> str:
        """A place below the root: `site.uri("models", version)`."""
        return "/".join((self.root.rstrip("/"), *parts))

    @property
    def hosting_role(self) -> str:
        """ARN of the role that endpoints and batch transforms run under: that of their model."""
        return self.endpoint_role or self.role


def context_of_environment(
    config: SageMakerConfig,
    *,
    run: str = "",
    fresh: str = "",
    environment: Mapping[str, str] = os.environ,
) -> SageMakerContext:
    """The site that the environment names, as stacks/values.py and the orchestrating job set it.

    Raises:
        UserError: naming every variable that is missing.
    """
    missing = [name for name in _REQUIRED if not environment.get(name)]
    if missing:
        raise UserError(
            [f"{name} is not set: docs/sagemaker.md says what it has to be" for name in missing]
        )
    return SageMakerContext(
        region=environment["AWS_REGION"],
        role=environment["DARKROOM_ROLE_ARN"],
        image=environment.get("DARKROOM_IMAGE", ""),
        root=environment["DARKROOM_S3_ROOT"],
        config=config,
        endpoint_role=environment.get("DARKROOM_ENDPOINT_ROLE_ARN", ""),
        run=run,
        fresh=fresh,
    )


# --- clients ---

_USUAL = Config(
    connect_timeout=10,
    read_timeout=70,  # InvokeEndpoint may take 60
    retries={"mode": "standard", "total_max_attempts": 6},
    max_pool_connections=32,
)
_POLLING = _USUAL.merge(Config(retries={"mode": "adaptive", "total_max_attempts": 6}))
"""For what is asked again and again: slows down by itself while AWS throttles."""
_PRICE_LIST_REGION = "us-east-1"  # one of three that answer for the price list of all


class Clients:
    """Clients of one region, by boto3's usual credentials; AWS_ENDPOINT_URL is honoured.

    Each raises UserError where credentials or the region are missing.
    """

    def __init__(self, region: str | None = None) -> None:
        self.region = region
        self._lock = RLock()

    def renew(self) -> None:
        """Read credentials anew from where boto3 finds them; clients are made again."""
        with self._lock:
            for name in list(vars(self)):
                if isinstance(getattr(type(self), name, None), cached_property):
                    delattr(self, name)

    @cached_property
    def sagemaker(self) -> "SageMakerClient":
        """Jobs, models, endpoints."""
        with self._making("SageMaker") as session:
            return session.client("sagemaker", config=_POLLING)

    @cached_property
    def runtime(self) -> "SageMakerRuntimeClient":
        """Predictions of endpoints."""
        with self._making("SageMaker") as session:
            return session.client("sagemaker-runtime", config=_USUAL)

    @cached_property
    def logs(self) -> "CloudWatchLogsClient":
        """CloudWatch's logs."""
        with self._making("CloudWatch") as session:
            return session.client("logs", config=_POLLING)

    @cached_property
    def s3(self) -> "S3Client":
        """Storage."""
        with self._making("S3") as session:
            return session.client("s3", config=_USUAL)

    @cached_property
    def autoscaling(self) -> "ApplicationAutoScalingClient":
        """Scaling of endpoints."""
        with self._making("Application Auto Scaling") as session:
            return session.client("application-autoscaling", config=_USUAL)

    @cached_property
    def cloudwatch(self) -> "CloudWatchClient":
        """Metrics and alarms."""
        with self._making("CloudWatch") as session:
            return session.client("cloudwatch", config=_USUAL)

    @cached_property
    def ecr(self) -> "ECRClient":
        """Images."""
        with self._making("ECR") as session:
            return session.client("ecr", config=_USUAL)

    @cached_property
    def iam(self) -> "IAMClient":
        """Roles."""
        with self._making("IAM") as session:
            return session.client("iam", config=_USUAL)

    @cached_property
    def sts(self) -> "STSClient":
        """Who we are."""
        with self._making("STS") as session:
            return session.client("sts", config=_USUAL)

    @cached_property
    def quotas(self) -> "ServiceQuotasClient":
        """What the account may use at once."""
        with self._making("Service Quotas") as session:
            return session.client("service-quotas", config=_USUAL)

    @cached_property
    def pricing(self) -> "PricingClient":
        """The price list of every region."""
        with self._making("the price list") as session:
            return session.client("pricing", region_name=_PRICE_LIST_REGION, config=_USUAL)

    @cached_property
    def _session(self) -> boto3.Session:
        return boto3.Session(region_name=self.region)

    @contextmanager
    def _making(self, service: str) -> Iterator[boto3.Session]:
        """A session for one thread at a time: only the clients it makes are thread-safe."""
        with self._lock, aws_errors_explained(service):
            yield self._session
