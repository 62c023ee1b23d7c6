"""The rows of a batch in a folder, read a few at a time, however many there are.

A part is a file of some hundred rows, named by the number of the first and written whole, so
that a batch goes on after the last part that a killed one has finished. `batch.json` is written
when there are no more to come.
"""

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from darkroom.base.errors import UserError
from darkroom.base.files import atomic_path, spreadsheet_line, write_text
from darkroom.models.prediction import ClassProbability, Prediction

if TYPE_CHECKING:
    import pyarrow


# --- rows ---
# What a batch knows of one image.


@dataclass(frozen=True, slots=True)
class BatchImage:
    """One image of a batch, before it is classified."""

    name: str
    """Relative to the source, with forward slashes."""
    place: str
    """Path or URI."""
    label: str | None = None
    """What its folder says it shows."""
    error: str | None = None
    """Why there is nothing to classify."""


class BatchRow(BaseModel):
    """One image with what the model says about it; `error` says why it could not."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    file: str
    class_name: str | None = Field(default=None, alias="class")
    probability: float | None = None
    top_k: list[ClassProbability] = []
    error: str | None = None
    label: str | None = None

    @property
    def correct(self) -> bool | None:
        """Whether the label was predicted; None: no label, or no class."""
        if self.label is None or self.class_name is None:
            return None
        return self.class_name == self.label


def joined(
    images: Iterable[BatchImage], predictions: Iterable[Prediction], *, top_k: int
) -> Iterator[BatchRow]:
    """Rows from images and what was predicted of them, in the same order."""
    for image, found in zip(images, predictions, strict=True):
        yield BatchRow(
            file=image.name,
            class_name=found.class_name,
            probability=found.probability,
            top_k=found.top_k[:top_k],
            error=found.error,
            label=image.label,
        )


# --- table ---

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


# --- tables ---
# Rows of a batch as CSV and Parquet; the columns are the same, and docs/batch.md has them.

COLUMNS = (
    *("file", "class", "probability", "top_k", "error", "label", "correct", "model_version"),
    "engine",
)
_GROUP_ROWS = 4096


def check_table_name(path: Path) -> None:
    """Refuse names whose ending names no format, or one that cannot be written here.

    Raises:
        UserError: neither .csv nor .parquet, or the latter without pyarrow.
    """
    ending = path.suffix.lower()
    if ending not in _WRITERS:
        raise UserError(
            f"--out {str(path)!r} ends in {path.suffix!r}; tables are written as "
            f"{' or '.join(_WRITERS)}"
        )
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError("Parquet needs pyarrow, which is not installed: write .csv, or install it")


def write_table(table: BatchTable, path: Path) -> None:
    """Write a table in the format that the name ends in, whole or not at all.

    Raises:
        UserError: as `check_table_name`.
    """
    check_table_name(path)
    with atomic_path(path) as temporary:
        _WRITERS[path.suffix.lower()](table, temporary)


def _write_csv(table: BatchTable, path: Path) -> None:
    """With a header; top_k is a JSON object."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(spreadsheet_line(COLUMNS))
        for row in table.rows():
            best = {item.class_name: item.probability for item in row.top_k}
            top_k = json.dumps(best, ensure_ascii=False) if best else None
            values = _values(row, about=table.about) | {"top_k": top_k}
            file.write(spreadsheet_line(values[name] for name in COLUMNS))


def _write_parquet(table: BatchTable, path: Path) -> None:
    """In groups of rows; top_k is a list of structs."""
    import pyarrow
    from pyarrow import parquet

    schema = _schema()
    with parquet.ParquetWriter(path, schema) as writer:
        for rows in _groups(table.rows()):
            values = [_values(row, about=table.about) for row in rows]
            writer.write_table(pyarrow.Table.from_pylist(values, schema=schema))


def _schema() -> "pyarrow.Schema":
    import pyarrow

    best = pyarrow.struct([("class", pyarrow.string()), ("probability", pyarrow.float32())])
    types = {
        "file": pyarrow.string(),
        "class": pyarrow.string(),
        "probability": pyarrow.float32(),
        "top_k": pyarrow.list_(best),
        "error": pyarrow.string(),
        "label": pyarrow.string(),
        "correct": pyarrow.bool_(),
        "model_version": pyarrow.string(),
        "engine": pyarrow.string(),
    }
    return pyarrow.schema([(name, types[name]) for name in COLUMNS])


def _values(row: BatchRow, *, about: BatchAbout) -> dict[str, object]:
    common = {"model_version": about.model_version, "engine": about.engine or None}
    return row.model_dump() | {"correct": row.correct} | common


def _groups(rows: Iterator[BatchRow]) -> Iterator[list[BatchRow]]:
    while group := list(islice(rows, _GROUP_ROWS)):
        yield group


_WRITERS: dict[str, Callable[[BatchTable, Path], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
