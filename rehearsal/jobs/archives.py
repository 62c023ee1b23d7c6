"""What a training job leaves behind: model.tar.gz and output.tar.gz on S3."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

from rehearsal.emulator.state import State
from rehearsal.jobs import storage

_LEVEL = 1
"""Of compression: weights hardly shrink, and AWS's choice of level is not known."""


def store(folders: Sequence[Path], *, uri: str, name: str, packed: bool, state: State) -> str:
    """Upload the files of all hosts' folders as one archive, or one by one; the place.

    Where hosts wrote the same file, the first host's is taken.

    Args:
        uri: s3://…/<job>/output.
        name: "model" or "output".
    """
    if not packed:
        for folder in reversed(folders):
            storage.upload_folder(folder, uri=f"{uri}/{name}", state=state)
        return f"{uri}/{name}/"
    archive = folders[0].parent / f".{name}.tar.gz"
    _pack(folders, archive=archive)
    storage.upload(archive, uri=f"{uri}/{name}.tar.gz", state=state)
    archive.unlink()
    return f"{uri}/{name}.tar.gz"


def is_empty(folders: Sequence[Path]) -> bool:
    """Whether no host has written anything."""
    return not any(next(storage.files_below(folder), None) for folder in folders)


def _pack(folders: Sequence[Path], *, archive: Path) -> None:
    written: set[str] = set()
    with tarfile.open(archive, "w:gz", compresslevel=_LEVEL) as tar:
        for folder in folders:
            for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
                name = path.relative_to(folder).as_posix()
                if name not in written:
                    written.add(name)
                    tar.add(path, arcname=name, recursive=False)
