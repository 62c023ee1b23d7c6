"""Rows of a batch as CSV and Parquet; the columns are the same, and docs/batch.md has them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.batch.rows import BatchRow, BatchTable
from darkroom.errors import UserError
from darkroom.files import atomic_path, write_text

if TYPE_CHECKING:
    import pyarrow

COLUMNS = (
    *("file", "class", "probability", "top_k", "error", "label", "correct", "model_version"),
)


def check_table_name(path: Path) -> None:
    """Refuse names whose ending names no format.

    Raises:
        UserError: neither .csv nor .parquet.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UserError(
            f"--out {str(path)!r} ends in {path.suffix!r}; tables are written as "
            f"{' or '.join(_WRITERS)}"
        )


def write_table(table: BatchTable, path: Path) -> None:
    """Write a table in the format that the name ends in, whole or not at all.

    Raises:
        UserError: as `check_table_name`.
    """
    check_table_name(path)
    _WRITERS[path.suffix.lower()](table, path)


def as_csv(table: BatchTable) -> str:
    """The table with a header; top_k is JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in table.rows:
        best = {item.class_name: item.probability for item in row.top_k}
        top_k = json.dumps(best, ensure_ascii=False) if best else None
        writer.writerow((*_before(row), top_k, *_after(row), table.model_version))
    return text.getvalue()


def as_arrow(table: BatchTable) -> "pyarrow.Table":
    """The table for Parquet; top_k is a list of structs."""
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
    }
    rows = [
        (*_before(row), [k.model_dump() for k in row.top_k], *_after(row), table.model_version)
        for row in table.rows
    ]
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    arrays = [
        pyarrow.array(list(values), type=types[name])
        for name, values in zip(COLUMNS, columns, strict=True)
    ]
    return pyarrow.table(arrays, schema=pyarrow.schema(list(types.items())))


def _before(row: BatchRow) -> tuple[object, ...]:
    return row.file, row.class_name, row.probability


def _after(row: BatchRow) -> tuple[object, ...]:
    return row.error, row.label, row.correct


def _write_csv(table: BatchTable, path: Path) -> None:
    write_text(path, as_csv(table))


def _write_parquet(table: BatchTable, path: Path) -> None:
    from pyarrow import parquet

    with atomic_path(path) as temporary:
        parquet.write_table(as_arrow(table), temporary)


_WRITERS: dict[str, Callable[[BatchTable, Path], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
