"""Looks as Parquet files, one a look, for images where smdebug cannot run.

    tensors/train-000000000012.parquet    name, kind, shape, type, statistics, units, value

Each file is whole or absent, so a killed training leaves every finished look readable.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from darkroom.base.files import atomic_path
from darkroom.telemetry.evidence import Kind, Mode
from darkroom.telemetry.tensors import TensorTable

if TYPE_CHECKING:
    from darkroom.debugging.recording.snapshots import Look

_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("kind", pa.string()),
        ("statistics", pa.list_(pa.float64())),
        ("units", pa.list_(pa.float32())),
        ("units_shape", pa.list_(pa.int64())),
        ("type", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("value", pa.binary()),
    ]
)
_STORED = ("name", "kind", "statistics", "units", "units_shape")


class ParquetWriter:
    """Writes looks into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, look: "Look") -> None:
        """Store one look."""
        rows = [
            {
                "name": captured.name,
                "kind": captured.kind,
                "statistics": list(captured.statistics),
                **_units(captured.units),
                **_value(captured.value),
            }
            for captured in look.tensors
        ]
        path = self._folder / f"{look.mode}-{look.step:012}.parquet"
        with atomic_path(path, durable=False) as temporary:
            pq.write_table(
                pa.Table.from_pylist(rows, schema=_SCHEMA), temporary, compression="zstd"
            )

    def close(self) -> None:
        """Nothing is pending."""


def read_parquet_tensors(folder: Path) -> TensorTable:
    """Every look of a folder; whole tensors are read when they are asked for."""
    table = TensorTable()
    for path in sorted(folder.glob("*.parquet")):
        mode, _, step = path.stem.partition("-")
        if mode in get_args(Mode) and step.isdigit():
            _add(table, path, mode=cast(Mode, mode), step=int(step))
    return table


def _add(table: TensorTable, path: Path, *, mode: Mode, step: int) -> None:
    stored = pq.read_table(path, columns=[*_STORED, "shape"]).to_pylist()
    for number, row in enumerate(stored):
        units = row["units"]
        table.add(
            row["name"],
            kind=cast(Kind, row["kind"]),
            mode=mode,
            step=step,
            statistics=row["statistics"],
            units=None if units is None else np.array(units).reshape(row["units_shape"]),
            value=partial(_load, path, number) if row["shape"] is not None else None,
        )


def _load(path: Path, number: int) -> NDArray[Any]:
    row = pq.read_table(path, columns=["value", "type", "shape"]).slice(number, 1).to_pylist()[0]
    return np.frombuffer(row["value"], dtype=row["type"]).reshape(row["shape"])


def _units(units: NDArray[Any] | None) -> Mapping[str, object]:
    if units is None:
        return {}
    return {"units": units.ravel().tolist(), "units_shape": list(units.shape)}


def _value(value: NDArray[Any] | None) -> Mapping[str, object]:
    if value is None:
        return {}
    return {"value": value.tobytes(), "type": value.dtype.str, "shape": list(value.shape)}
