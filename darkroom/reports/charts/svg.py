"""SVG elements as text; every value is escaped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Value = str | float | int

HALF_WIDTH, FULL_WIDTH = 500.0, 1040.0
"""Of pictures, in CSS pixels."""


def element(name: str, *, content: Markup | str = "", **attributes: Value | None) -> Markup:
    """One element; `class_` is written class, `stroke_width` stroke-width, None not at all."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")  # noqa: S704 - escaped above


def joined(parts: Iterable[Markup]) -> Markup:
    """One after the other."""
    return Markup("").join(parts)


def title(text: str) -> Markup:
    """What a browser shows when a pointer rests on the element."""
    return element("title", content=text)


def drawing(content: Markup, *, width: float, height: float, label: str, kind: str = "") -> Markup:
    """A whole picture. Half-wide ones are readable on a phone, wide ones scroll there."""
    size = "half" if width <= HALF_WIDTH else "full"
    return element(
        "svg",
        content=content,
        class_=f"chart {size} {kind}".rstrip(),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
    )


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    colour: str
    """A class of the style sheet, such as 'blue'."""
    shape: str = "line"
    """'line', 'faint', 'dashed' or 'area'."""


def legend(keys: Sequence[Key]) -> Markup:
    """What the colours mean, as text that wraps; nothing for a single unnamed line."""
    named = [key for key in keys if key.label]
    if not named:
        return Markup("")
    entries = (
        element(
            "span",
            content=element("i", class_=f"{key.shape} c-{key.colour}") + Markup(escape(key.label)),  # noqa: S704
        )
        for key in named
    )
    return element("div", content=joined(entries), class_="legend")


def _text(value: Value) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
