"""What a check found, and how a check goes on where AWS will not answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from darkroom.backends.aws_access import error_code
from darkroom.backends.sagemaker.aws_errors import explained
from darkroom.errors import DarkroomError

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
