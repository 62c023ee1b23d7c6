"""Checks of single files: broken, misnamed, in an odd mode, of an extreme size."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from statistics import median

from darkroom.config import ProblemPolicy
from darkroom.images import EXTENSIONS
from darkroom.validation.inspection import ImageFacts, Inspection
from darkroom.validation.report import Finding, consequence

MAXIMUM_ELONGATION = 4.0
"""Longer side to shorter: beyond it, a centre crop sees less than a quarter of the picture."""

MAXIMUM_ENLARGEMENT = 4.0
"""Shorter side against the median of the data set: beyond it either way, sharpness differs."""


def undecodable(inspection: Inspection, *, policy: ProblemPolicy) -> Iterator[Finding]:
    """Files that are no image, truncated, or too large."""
    notes = _notes(inspection, lambda facts: facts.problem, usable=False)
    if notes:
        yield Finding(
            kind="undecodable",
            action=policy,
            message=f"{_images(len(notes))} cannot be decoded",
            advice=consequence(policy, key="data.on_undecodable"),
            files=tuple(notes),
            notes=notes,
        )


def wrong_extensions(inspection: Inspection) -> Iterator[Finding]:
    """Files whose content is of another format than their names say."""
    notes = {
        record.path: f"holds {facts.format}"
        for record, facts in zip(inspection.dataset.records, inspection.facts, strict=True)
        if facts.is_usable and _extension(record.path) not in ("", *EXTENSIONS[facts.format])
    }
    if notes:
        yield Finding(
            kind="wrong_extension",
            action="warn",
            message=f"{_images(len(notes))} of another format than the name says",
            advice="They are read by content, so this does no harm here; other programs may fail.",
            files=tuple(notes),
            notes=notes,
        )


def odd_modes(inspection: Inspection) -> Iterator[Finding]:
    """Inks, palettes, transparency, 16 bits, and grey among coloured pictures or the reverse."""
    modes = Counter(facts.mode for facts in inspection.facts)
    usual = "L" if modes["L"] > modes["RGB"] else "RGB"
    notes = _notes(inspection, lambda facts: _oddity(facts.mode, usual=usual))
    if notes:
        kinds = Counter(notes.values()).most_common()
        yield Finding(
            kind="odd_modes",
            action="warn",
            message=f"{_images(len(notes))} stored in an unusual way: "
            + "; ".join(f"{kind}: {count:,}" for kind, count in kinds),
            advice="All become 8-bit RGB. Where a way of storing goes with a class, "
            "the model may learn it instead of the subject.",
            files=tuple(notes),
            notes=notes,
        )


def extreme_sizes(inspection: Inspection) -> Iterator[Finding]:
    """Pictures far longer, smaller or larger than the rest."""
    sides = [min(facts.width, facts.height) for facts in inspection.facts if facts.is_usable]
    usual = median(sides) if sides else 0
    notes = _notes(inspection, lambda facts: _extremity(facts, usual=usual))
    if notes:
        yield Finding(
            kind="extreme_sizes",
            action="warn",
            message=f"{_images(len(notes))} of an extreme size or shape",
            advice=f"The shorter side is {usual:g} pixels in the median. "
            "The network sees a square from the middle, at one size for all.",
            files=tuple(notes),
            notes=notes,
        )


def _extension(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _notes(
    inspection: Inspection, describe: Callable[[ImageFacts], str], *, usable: bool = True
) -> dict[str, str]:
    """What `describe` has to say about files, by path; silence is left out."""
    return {
        record.path: note
        for record, facts in zip(inspection.dataset.records, inspection.facts, strict=True)
        if facts.is_usable == usable and (note := describe(facts))
    }


def _oddity(mode: str, *, usual: str) -> str:
    if mode in ("L", "RGB"):
        return "" if mode == usual else ("grey" if mode == "L" else "colour among grey")
    if mode.endswith("alpha") or mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        return "transparency, laid on white"
    if mode.startswith(("I", "F")):
        return "16 bits, scaled to 8"
    names = {"CMYK": "CMYK inks, without a colour profile", "P": "palette", "1": "black or white"}
    return names.get(mode, f"mode {mode}")


def _extremity(facts: ImageFacts, *, usual: float) -> str:
    short, long = sorted((facts.width, facts.height))
    size = f"{facts.width}×{facts.height}"
    if long > MAXIMUM_ELONGATION * short:
        return f"{size}, {long / short:.1f} times as long as wide"
    if short * MAXIMUM_ENLARGEMENT < usual:
        return f"{size}, far smaller than the rest"
    if short > MAXIMUM_ENLARGEMENT * usual:
        return f"{size}, far larger than the rest"
    return ""


def _images(count: int) -> str:
    return f"{count:,} image" + ("" if count == 1 else "s")
