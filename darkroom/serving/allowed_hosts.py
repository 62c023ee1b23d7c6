"""The hosts that images may be fetched from, where an operator limits them."""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_PATTERN = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


def is_among(patterns: Sequence[str], *, host: str) -> bool:
    """Whether a host, as it is looked up (in ASCII), is one of those.

    `*.example.com` means every name below example.com, and not that name itself.
    """
    host = host.lower().removesuffix(".")
    return any(
        host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
        for pattern in patterns
    )


def checked_pattern(pattern: str) -> str:
    """Check a pattern, and write it in small letters.

    What could never match would silently let nothing through.
    """
    pattern = pattern.lower().removesuffix(".")
    if not _PATTERN.fullmatch(pattern):
        raise PydanticCustomError(
            "host_pattern",
            "a host is a name such as 'images.example.com', or '*.example.com' for all below "
            "it, without scheme, port and path; other alphabets in their xn-- form",
        )
    return pattern


HostPattern = Annotated[str, AfterValidator(checked_pattern)]
