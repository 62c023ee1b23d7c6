"""Who AWS takes us for, and where."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import botocore.session

from darkroom.backends.sagemaker.preflight.findings import Finding

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient


@dataclass(frozen=True)
class Caller:
    """Whose credentials are used."""

    account: str
    arn: str

    @property
    def principal(self) -> str:
        """ARN that policies are attached to: of an assumed role, that of the role.

        A path of the role is not in the ARN of its session and cannot be known from it.
        """
        if ":assumed-role/" not in self.arn:
            return self.arn
        partition, name = self.arn.split(":")[1], self.arn.split("/")[1]
        return f"arn:{partition}:iam::{self.account}:role/{name}"

    @property
    def is_root(self) -> bool:
        """Whether nothing restricts them."""
        return self.arn.endswith(":root")


def find_caller(sts: "STSClient") -> Caller:
    """Ask AWS.

    Raises:
        botocore.exceptions.ClientError: AWS does not accept the credentials.
        botocore.exceptions.BotoCoreError: there are none, or AWS cannot be reached.
    """
    answer = sts.get_caller_identity()
    return Caller(account=answer["Account"], arn=answer["Arn"])


def check_region(region: str) -> list[Finding]:
    """Whether SageMaker is known to exist in a region."""
    if not region:
        text = "no region is set. Set AWS_REGION, such as us-east-1."
        return [Finding("region", "problem", text)]
    known = _regions()
    if region in known:
        return [Finding("region", "ok", f"{region} has SageMaker.")]
    near = [name for name in known if name.split("-")[0] == region.split("-")[0]]
    choice = ", ".join(near) or "one such as us-east-1 or eu-west-1"
    text = f"{region!r} is no region that has SageMaker. Set AWS_REGION to {choice}."
    return [Finding("region", "problem", text)]


def _regions() -> list[str]:
    """All that have SageMaker, as of the installed botocore."""
    session = botocore.session.get_session()
    return sorted(
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("sagemaker", partition_name=partition)
    )
