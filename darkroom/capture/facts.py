"""What a recording says of itself before the first step: recording.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from darkroom.config.debugging import RecordingConfig
from darkroom.errors import UserError
from darkroom.files import write_text
from darkroom.rules.evidence import TrainingFacts

_VERSION = 1


@dataclass(frozen=True)
class RecordingFacts:
    """The training's facts, and how it was recorded."""

    training: TrainingFacts
    recording: RecordingConfig
    backend: str
    """Which one 'auto' came to: 'smdebug' or 'torch'."""
    paths: tuple[str, ...]
    """Of the training images in the manifest, as margins.npz numbers them."""
    starts: tuple[float, ...]
    """Seconds since 1970, of each start: more than one where the training was interrupted."""
    version: int = _VERSION


def write_facts(path: Path, facts: RecordingFacts) -> None:
    """Write recording.json; the starts of an earlier one are kept."""
    with_starts = replace(facts, starts=(*_earlier_starts(path), *facts.starts))
    content = asdict(with_starts) | {"recording": facts.recording.model_dump()}
    write_text(path, json.dumps(content))


def read_facts(path: Path) -> RecordingFacts:
    """Read recording.json.

    Raises:
        UserError: there is none, or it is of another version.
    """
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        facts = TypeAdapter(RecordingFacts).validate_python(content)
    except FileNotFoundError as error:
        raise UserError(f"{str(path.parent)!r} is no recording: it has no {path.name}") from error
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{str(path)!r} cannot be read as a recording's facts: {error}") from error
    started = min(facts.starts, default=facts.training.started)
    return replace(facts, training=replace(facts.training, started=started))


def _earlier_starts(path: Path) -> tuple[float, ...]:
    try:
        return tuple(float(start) for start in json.loads(path.read_text())["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()
