"""What a configuration names beside its data: files whose content decides what comes out.

A path says nothing of what lies there. Earlier results are reused only for the same content.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from darkroom.backends.weights import NAMED
from darkroom.config.debugging import DiagnosisConfig
from darkroom.errors import UserError
from darkroom.model.bundle import content_file
from darkroom.sources.hashing import HashIndex, hash_files


def weights_version(weights: str, *, store: Path) -> str:
    """A token that changes with the content of the initial weights; empty for named ones.

    Args:
        weights: as `model.weights` has it.
        store: folder that remembers hashes of files that have not changed.

    Raises:
        UserError: the path or address leads nowhere.
    """
    if weights in NAMED:
        return ""
    if weights.startswith(("http://", "https://")):
        from darkroom.sources.download import look_up

        return look_up(weights).version
    if weights.startswith("s3://"):
        from darkroom.backends import storage

        return storage.look_up(weights, maximum_bytes=2**63, maximum_files=1_000).version
    path = content_file(Path(weights).expanduser())
    if not path.is_file():
        raise UserError(
            f"no weights at {weights!r}: model.weights may be 'imagenet', 'none', or the path or "
            "URI of a bundle (a folder or model.tar.gz) or of a .safetensors file"
        )
    return _digest([path], store=store)


def rules_version(diagnosis: DiagnosisConfig, *, store: Path) -> str:
    """A token that changes with the user's rules, and with the recording they compare with.

    Empty where there are none.
    """
    return _digest(_rule_files(diagnosis), store=store) if diagnosis.enabled else ""


def _rule_files(diagnosis: DiagnosisConfig) -> list[Path]:
    from darkroom.diagnosis.checking import other_run
    from darkroom.rules.custom import files_of

    files = [path for custom in diagnosis.custom for path in files_of(custom.function)]
    other = other_run(diagnosis)
    recorded = [path for path in other.root.rglob("*") if path.is_file()] if other else []
    return sorted({*files, *recorded})


def _digest(files: Iterable[Path], *, store: Path) -> str:
    """Of the files' content, wherever they lie; empty for none."""
    paths = [os.path.abspath(path) for path in files]
    if not paths:
        return ""
    with HashIndex.in_store(store) as index:
        hashes = hash_files(paths, index=index)
    text = "\n".join(f"{Path(path).name} {hashes[path]}" for path in paths)
    return hashlib.sha256(text.encode()).hexdigest()
