"""What a request asks for beside the classes, and the answer in the form that was asked for."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from darkroom.base.files import csv_line
from darkroom.models.engine import Floats
from darkroom.models.prediction import ClassProbability
from darkroom.serving import content
from darkroom.serving.limits import refused

# --- options ---
# What a request asks for beside the classes: by its query, or by SageMaker's custom attributes.
#
# POST /invocations?top_k=3&details=true
# X-Amzn-SageMaker-Custom-Attributes: top_k=3,details=true
#
# InvokeEndpoint has no query, so that the custom attributes are the only way through SageMaker.
# They are the caller's own otherwise: what is no option of ours is left alone there.

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

_DEFAULT_TOP_K = 5
_MAX_DIGITS = 9
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
    if not (text.isascii() and text.isdecimal() and int(text[:_MAX_DIGITS]) >= 1):
        raise refused(f"top_k is {text!r}; it must be a whole number, at least 1")
    return int(text[:_MAX_DIGITS])


def _details(given: Mapping[str, str]) -> bool:
    text = given.get("details", "false").lower()
    if text not in _BOOLEANS:
        raise refused(f"details is {text!r}; it must be true or false")
    return _BOOLEANS[text]


# --- answers ---

ANSWER_TYPES = ("application/json", "text/csv", "application/x-npy")
"""The first is the default."""

_MAX_WISHES = 64
"""In an Accept header; browsers send up to eight."""

VERSION_HEADER = "X-Model-Version"
ENGINE_HEADER = "X-Model-Engine"


@dataclass(frozen=True)
class Classified:
    """What a model says about the images of one request."""

    probabilities: Floats
    """(N, C)."""
    best: Sequence[Sequence[ClassProbability]]
    """For each image, its most probable classes, best first."""
    version: str
    engine: str
    """What ran the network."""
    is_list: bool
    details: dict[str, object] = field(default_factory=dict)
    """How it came to be; empty unless that was asked for."""


def choose_type(accept: str | None) -> str:
    """The form that an Accept header asks for (RFC 9110, 12.5.1).

    Raises:
        HTTPException: 406 names what there is.
    """
    if not accept or accept == "*/*":
        return ANSWER_TYPES[0]
    parts = accept.split(",")
    if len(parts) > _MAX_WISHES:  # 64 kB of them would hold up the event loop
        message = f"accept names {len(parts):,} forms; at most {_MAX_WISHES} are looked at"
        raise refused(f"{message}; answers come as {', '.join(ANSWER_TYPES)}", status=406)
    wishes = [_wish(part) for part in parts]
    ranked = sorted((w for w in wishes if w[1] > 0), key=lambda w: -w[1])
    for pattern, _ in ranked:
        for kind in ANSWER_TYPES:
            if _matches(kind, pattern=pattern):
                return kind
    message = f"accept {accept!r:.200}; answers come as {', '.join(ANSWER_TYPES)}"
    raise refused(message, status=406)


def render(classified: Classified, *, kind: str) -> Response:
    """The answer as `kind`, one of ANSWER_TYPES."""
    return Response(
        _WRITERS[kind](classified),
        media_type=kind,
        headers={VERSION_HEADER: classified.version, ENGINE_HEADER: classified.engine},
    )


def _wish(part: str) -> tuple[str, float]:
    pattern, *parameters = [piece.strip().lower() for piece in part.split(";")]
    weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    try:
        return pattern, float(weight)
    except ValueError:
        return pattern, 0.0


def _matches(kind: str, *, pattern: str) -> bool:
    family, _, member = pattern.partition("/")
    return pattern in (kind, "*/*") or (member == "*" and kind.startswith(f"{family}/"))


def _as_json(classified: Classified) -> bytes:
    rows = [_row(best) for best in classified.best]
    answer: dict[str, object] = {"predictions": rows} if classified.is_list else rows[0]
    answer["model_version"] = classified.version
    answer["engine"] = classified.engine
    if classified.details:
        answer["details"] = classified.details
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def _row(best: Sequence[ClassProbability]) -> dict[str, object]:
    ranked = [{"class": item.class_name, "probability": item.probability} for item in best]
    return {**ranked[0], "top_k": ranked}


def _as_csv(classified: Classified) -> bytes:
    rows = [
        (image, rank, item.class_name, item.probability)
        for image, best in enumerate(classified.best, 1)
        for rank, item in enumerate(best, 1)
    ]
    return "".join(map(csv_line, [("image", "rank", "class", "probability"), *rows])).encode()


def _as_npy(classified: Classified) -> bytes:
    return content.write(classified.probabilities)


_WRITERS: dict[str, Callable[[Classified], bytes]] = {
    "application/json": _as_json,
    "text/csv": _as_csv,
    "application/x-npy": _as_npy,
}
