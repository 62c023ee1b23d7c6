"""Files of JSON lines that grow while a training runs, and survive its being killed."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path


class LineWriter:
    """Appends JSON objects, each on the disk as soon as it is written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_torn = _is_torn(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if is_torn:
            self._file.write("\n")

    def write(self, values: Mapping[str, object]) -> None:
        """Append one object; NaN and infinities are written as JavaScript would."""
        self._file.write(json.dumps(values, separators=(",", ":")) + "\n")

    def close(self) -> None:
        self._file.close()


def _is_torn(path: Path) -> bool:
    """Whether the last line was left unfinished."""
    if not (path.exists() and path.stat().st_size):
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def read_lines(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a file; a line that a killed training left unfinished is left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                yield values
