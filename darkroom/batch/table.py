"""The rows of a batch in a folder, read a few at a time, however many there are.

A part is a file of some hundred rows, named by the number of the first and written whole, so
that a batch goes on after the last part that a killed one has finished. `batch.json` is written
when there are no more to come.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from darkroom.batch.rows import BatchRow
from darkroom.files import write_text

PART_ROWS = 256
ABOUT_FILE = "batch.json"


class BatchAbout(BaseModel):
    """What the rows of a batch have in common."""

    model_config = ConfigDict(frozen=True)

    identity: str
    """The same for the same images, model and options; names the folder."""
    model_version: str
    classes: tuple[str, ...]
    engine: str = ""
    """What ran the network; of a transform job, as its answers say."""


@dataclass(frozen=True)
class BatchTable:
    """All rows of a batch, in the order of the source."""

    folder: Path
    about: BatchAbout

    def rows(self) -> Iterator[BatchRow]:
        """Read them from the first."""
        number = 0
        while (path := part_of(self.folder, number)).is_file():
            for row in read_part(path):
                yield row
                number += 1

    def discard(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def part_of(folder: Path, number: int) -> Path:
    """The file of the rows from `number` on."""
    return folder / f"{number:08}.jsonl"


def read_part(path: Path) -> Iterator[BatchRow]:
    """The rows of one part."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield BatchRow.model_validate_json(line)


def write_parts(folder: Path, rows: Iterable[BatchRow], *, start: int = 0) -> None:
    """Write rows part by part, each as soon as it is complete.

    Args:
        start: number of the first of them.
    """
    rest = iter(rows)
    while part := list(islice(rest, PART_ROWS)):
        text = "".join(f"{row.model_dump_json()}\n" for row in part)
        write_text(part_of(folder, start), text)
        start += len(part)


def finish(folder: Path, about: BatchAbout) -> BatchTable:
    """Say that all rows are there."""
    write_text(folder / ABOUT_FILE, about.model_dump_json())
    return BatchTable(folder, about)
