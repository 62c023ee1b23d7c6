"""What a request asks for beside the classes: by its query, or by SageMaker's custom attributes.

    POST /invocations?top_k=3&details=true
    X-Amzn-SageMaker-Custom-Attributes: top_k=3,details=true

InvokeEndpoint has no query, so that the custom attributes are the only way through SageMaker.
They are the caller's own otherwise: what is no option of ours is left alone there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from darkroom.serving.limits import refused

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

_DEFAULT_TOP_K = 5
_MOST_DIGITS = 9
_BOOLEANS = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
_NAMES = ("top_k", "details")


@dataclass(frozen=True)
class Options:
    """Of one request."""

    top_k: int = _DEFAULT_TOP_K
    """Classes named in the answer, at least 1."""
    details: bool = False
    """Whether the answer says which engine worked, and how long."""


def single_header(request: Request, name: str) -> str:
    """A header that has one value; empty where it is not given.

    Raises:
        HTTPException: 400 for several: which is meant, nobody knows.
    """
    values = {*request.headers.getlist(name)}
    if len(values) > 1:
        raise refused(f"the header {name} has {len(values)} values; it must have one")
    return next(iter(values), "")


def read_options(request: Request) -> Options:
    """The options of a request; its query wins.

    Raises:
        HTTPException: 400 for an option that does not exist, or a value that is none.
    """
    query = request.query_params
    unknown = [name for name in query if name not in _NAMES]
    if unknown:
        raise refused(f"unknown option {unknown[0]!r}; there are {', '.join(_NAMES)}")
    given = {**_custom(single_header(request, CUSTOM_ATTRIBUTES)), **query}
    return Options(top_k=_top_k(given), details=_details(given))


def _custom(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in re.split(r"[,;]", text)]
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip() in _NAMES}


def _top_k(given: Mapping[str, str]) -> int:
    text = given.get("top_k", str(_DEFAULT_TOP_K))
    if not (text.isascii() and text.isdecimal() and int(text[:_MOST_DIGITS]) >= 1):
        raise refused(f"top_k is {text!r}; it must be a whole number, at least 1")
    return int(text[:_MOST_DIGITS])


def _details(given: Mapping[str, str]) -> bool:
    text = given.get("details", "false").lower()
    if text not in _BOOLEANS:
        raise refused(f"details is {text!r}; it must be true or false")
    return _BOOLEANS[text]
