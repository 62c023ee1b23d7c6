"""Self-contained HTML pages from the templates of this package."""

import base64
import io
from functools import cache
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from darkroom.images import ImageError, decode


def render_page(template: str, **values: object) -> str:
    """Render one of `darkroom/templates`; every value is escaped unless marked safe."""
    return _environment().get_template(template).render(**values)


def with_way_back(page: str, *, to: str, text: str) -> str:
    """A page of ours with a link at its top to a page that lies beside it."""
    link = f'<header>\n<p><a href="{escape(to)}">← {escape(text)}</a></p>'
    return page.replace("<header>", link, 1)


def data_uri(content: bytes, *, media_type: str = "image/png") -> str:
    """The content as an address that needs no file and no network."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def thumbnail(path: Path, *, side: int = 160) -> str | None:
    """The data URI of a JPEG at most `side` pixels high and wide; None where undecodable.

    Tiny pictures are enlarged pixel by pixel, for browsers would blur them.
    """
    try:
        image = decode(path, shorter_side=side)
    except ImageError:
        return None
    if (factor := side // max(image.size)) > 1:
        image = image.resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80, optimize=True)
    return data_uri(buffer.getvalue(), media_type="image/jpeg")


def darkroom_version() -> str:
    """The installed version; 'unknown' where the package runs uninstalled."""
    try:
        return version("darkroom")
    except PackageNotFoundError:
        return "unknown"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("darkroom"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["metric"] = lambda value: f"{value:.4f}"
    environment.globals["darkroom_version"] = darkroom_version()
    return environment
