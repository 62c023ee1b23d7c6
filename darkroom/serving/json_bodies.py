"""application/json requests: images by URL, or as base64.

{"url": "https://…"}           {"urls": ["https://…", …]}
{"image": "base64…"}           {"images": ["base64…", …]}

Python's parser holds the interpreter while it works, so that large bodies are parsed in a process
of their own (decoders.py). 6 MB of brackets would take most of a second of its time, and ten
times their memory. Such bodies are told by their punctuation, which is counted first.
"""

import binascii
import json
import re
import reprlib
from dataclasses import dataclass
from typing import Any

from darkroom.serving.limits import LONGEST_URL, MAXIMUM_IMAGES, refused, too_many_images

_ACCEPTED = 'one of {"url": …}, {"urls": […]}, {"image": base64}, {"images": [base64, …]}'
_KEYS = ("url", "urls", "image", "images")
_DATA_URL = re.compile(
    r"data:image/[a-z0-9.+-]{1,40}(;[a-z0-9=.+-]{1,40}){0,4};base64,", re.IGNORECASE | re.ASCII
)
_MOST_PUNCTUATION = 4096
"""Of all kinds together. A list of 64 texts takes 200; base64 and plain URLs hold none."""


@dataclass(frozen=True)
class JsonImages:
    """What a JSON body names: one of the two is empty."""

    urls: tuple[str, ...] = ()
    images: tuple[bytes, ...] = ()
    is_list: bool = False
    """Whether the answer is a list, as the question was."""


def read_json(body: bytes) -> JsonImages:
    """The images that a JSON body names.

    Raises:
        HTTPException: 400 says what is accepted, 413 for too many images.
    """
    key, value = _only_pair(_parsed(body))
    is_list = key.endswith("s")
    texts = _texts(key, value) if is_list else [_text(key, value)]
    if key.startswith("url"):
        if (longest := max(map(len, texts))) > LONGEST_URL:
            raise refused(f"a URL of {longest:,} characters; at most {LONGEST_URL:,}")
        return JsonImages(urls=tuple(texts), is_list=is_list)
    images = tuple(_decoded(text, position=position) for position, text in enumerate(texts, 1))
    return JsonImages(images=images, is_list=is_list)


def _parsed(body: bytes) -> Any:  # noqa: ANN401 - whatever was sent
    escaped = body.count(b"\\")
    # Wrapped base64 has an escaped line end for each 57 or 48 bytes, each a cheap token.
    marks = sum(body.count(mark) for mark in (b"{", b"[", b",", b":", b'"'))
    if marks > _MOST_PUNCTUATION or escaped > len(body) // 16 + _MOST_PUNCTUATION:
        raise refused(f"the body holds more than images or URLs; accepted is {_ACCEPTED}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise refused(f"the body is no valid JSON; accepted is {_ACCEPTED}") from error


def _only_pair(content: object) -> tuple[str, object]:
    if not isinstance(content, dict) or len(content) != 1 or not {*content} <= {*_KEYS}:
        found = reprlib.repr(sorted(content) if isinstance(content, dict) else content)
        raise refused(f"the body holds {found}; accepted is {_ACCEPTED}")
    return next(iter(content.items()))


def _texts(key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise refused(f"{key!r} must be a list with at least one text")
    if len(value) > MAXIMUM_IMAGES:
        raise too_many_images(len(value))
    return [_text(key, item) for item in value]


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        shown = reprlib.repr(value)  # what was sent may be large
        raise refused(f"{key!r} holds {shown}, which is no text; accepted is {_ACCEPTED}")
    return value


def _decoded(text: str, *, position: int) -> bytes:
    """What base64 stands for, wrapped into lines or not, alone or as a data URL."""
    match = _DATA_URL.match(text)
    try:
        packed = text[match.end() :].encode("ascii") if match else text.encode("ascii")
        return binascii.a2b_base64(packed.translate(None, b" \t\r\n"), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise refused(f"image {position} is no valid base64") from error
