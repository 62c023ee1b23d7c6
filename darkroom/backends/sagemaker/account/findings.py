"""What a check found, how a check goes on where AWS will not answer, and who AWS takes us for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from darkroom.backends.sagemaker.session import explained
from darkroom.backends.storage.access import error_code
from darkroom.base.errors import DarkroomError

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient


# --- findings ---

Level = Literal["ok", "problem", "note"]

_DENIED = frozenset(
    {"403", "AccessDenied", "AccessDeniedException", "Forbidden", "UnauthorizedOperation"}
)

UNREADABLE = (
    "what answers is not AWS: a proxy, or something else at AWS_ENDPOINT_URL. "
    "Check both, and run the check again."
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    """A word or two, such as 'execution role'."""
    level: Level
    text: str
    """A whole sentence; of a problem, with what to do."""


Check = Callable[[], list[Finding]]


def survive(check: Check, *, subject: str, action: str) -> list[Finding]:
    """Run a check; what AWS says instead of an answer becomes a finding.

    Args:
        action: the permission that it needs, such as 'iam:GetRole'.
    """
    try:
        return check()
    except ClientError as error:
        if error_code(error) in _DENIED:
            return [unknown(subject, action=action)]
        return [Finding(subject, "problem", str(explained(error, what=subject)))]
    except BotoCoreError as error:
        return [Finding(subject, "problem", str(explained(error, what=subject)))]
    except ResponseParserError:
        return [Finding(subject, "problem", UNREADABLE)]
    except DarkroomError as error:
        return [Finding(subject, "problem", str(error))]


def unknown(subject: str, *, action: str) -> Finding:
    """The caller may not look; that is no mistake."""
    return Finding(subject, "note", f"not checked: these credentials may not call {action}.")


# --- account ---
# Who AWS takes us for, and where.


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
