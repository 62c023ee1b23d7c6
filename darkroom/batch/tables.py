"""Rows of a batch as CSV and Parquet; the columns are the same, and docs/batch.md has them."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.batch.rows import BatchRow
from darkroom.batch.table import BatchAbout, BatchTable
from darkroom.errors import UserError
from darkroom.files import atomic_path, spreadsheet_line

if TYPE_CHECKING:
    import pyarrow

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
