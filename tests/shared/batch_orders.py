"""What tests of batches start from."""

from pathlib import Path
from typing import Any

from darkroom.batch.selection import BatchJobSpec
from darkroom.batch.table import BatchAbout, BatchImage, BatchRow, BatchTable, finish, write_parts
from darkroom.config import Config
from served import encoded
from small_bundles import CLASSES


def order(source: Path | str | None, bundle: Path, **values: Any) -> BatchJobSpec:
    """What `run.py batch SOURCE --model BUNDLE` asks for."""
    given = {"split": "all", "top_k": 2, "resume": True, "config": Config(), **values}
    return BatchJobSpec(source=None if source is None else str(source), model=bundle, **given)


def table_of(folder: Path, rows: list[BatchRow]) -> BatchTable:
    """A table of these rows."""
    write_parts(folder, rows)
    return finish(folder, BatchAbout(identity="1", model_version="abc", classes=CLASSES))


def write_many(folder: Path, *, count: int) -> list[BatchImage]:
    """Small blue images, 000.png and so on."""
    folder.mkdir()
    names = [f"{number:03}.png" for number in range(count)]
    for name in names:
        (folder / name).write_bytes(encoded("blue", size=(8, 8)))
    return [BatchImage(name=name, place=str(folder / name)) for name in names]
