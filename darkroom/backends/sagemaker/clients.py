"""boto3's clients: made when they are first needed, patient, and renewable."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from darkroom.backends.sagemaker.aws_errors import aws_errors_explained

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
