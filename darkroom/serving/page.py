"""The page at / of a local server: drop an image, see the classes and how long it took."""

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path

from starlette.responses import Response

from darkroom.images import REQUESTED_IMAGES

_PAGE = Path(__file__).with_name("page.html")
_SETTINGS = "{{settings}}"


def page_response(*, urls_allowed: bool, models: bool, maximum_bytes: int) -> Response:
    """The page; it loads nothing from elsewhere and runs no script but its own.

    Args:
        urls_allowed: whether it offers to fetch an image by URL.
        models: whether it offers a choice of models, asked of GET /models.
        maximum_bytes: of a request; the page makes larger images smaller.
    """
    page, policy = _page(urls_allowed=urls_allowed, models=models, maximum_bytes=maximum_bytes)
    return Response(
        page,
        media_type="text/html",
        headers={
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )


@cache
def _page(*, urls_allowed: bool, models: bool, maximum_bytes: int) -> tuple[str, str]:
    """The page with its settings, and a policy that names its script and style by hash."""
    settings = json.dumps(
        {
            "urls": urls_allowed,
            "models": models,
            "bytes": maximum_bytes,
            "formats": ", ".join(REQUESTED_IMAGES.formats),
        }
    )
    page = _PAGE.read_text(encoding="utf-8").replace(_SETTINGS, settings)
    policy = {
        "default-src": "'none'",
        "script-src": _hashes("script", page=page),
        "style-src": _hashes("style", page=page),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return page, "; ".join(f"{name} {value}" for name, value in policy.items())


def _hashes(tag: str, *, page: str) -> str:
    """Of the content of an element, as CSP wants it: without a byte more or less."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [hashlib.sha256(content.encode()).digest() for content in contents]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
