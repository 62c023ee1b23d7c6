"""From probabilities to the answer in the form that was asked for.

application/json    {"class": …, "probability": …, "top_k": […], "model_version": …,
                    "engine": …}, or {"predictions": […], …} for several images
text/csv            image,rank,class,probability; images and ranks from 1
application/x-npy   float32 (N, C) probabilities, in the order of the model's classes
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from starlette.responses import Response

from darkroom.engines.protocol import Floats
from darkroom.files import csv_line
from darkroom.prediction import ClassProbability
from darkroom.serving import npy
from darkroom.serving.limits import refused

ANSWER_TYPES = ("application/json", "text/csv", "application/x-npy")
"""The first is the default."""

_MOST_WISHES = 64
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
    if len(parts) > _MOST_WISHES:  # 64 kB of them would hold up the event loop
        message = f"accept names {len(parts):,} forms; at most {_MOST_WISHES} are looked at"
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
    return npy.write(classified.probabilities)


_WRITERS: dict[str, Callable[[Classified], bytes]] = {
    "application/json": _as_json,
    "text/csv": _as_csv,
    "application/x-npy": _as_npy,
}
