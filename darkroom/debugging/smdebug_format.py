"""The folder of a SageMaker Debugger trial: its files, and what its tensors are called.

    collections/000000000/worker_0_collections.json    which tensors belong together
    events/<step>/<step>_worker_0.tfevents             the tensors
    index/<thousand>/<step>_worker_0.json              where in them each tensor lies
    training_job_end.ts                                nothing will follow

Names are those that smdebug's hook would give. Statistics are stored as a vector
`statistics/<name>`; of weights, gradients and activations also as smdebug's reductions (min,
max, mean, std and abs_mean), for its own tools. The shares of channels are `units/<name>`.
"""

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkroom.telemetry.evidence import Kind

# --- smdebug trial ---

REDUCTIONS: Mapping[str, str] = {
    "mean": "mean",
    "std": "std",
    "minimum": "min",
    "maximum": "max",
    "abs_mean": "abs_mean",
}
"""Our column to smdebug's reduction."""
REDUCED: tuple[Kind, ...] = ("weight", "gradient", "activation")
STATISTICS_PREFIX, UNITS_PREFIX = "statistics/", "units/"
GRADIENT_PREFIX = "gradient/"
LOSS, LOGITS, LABELS = (
    "CrossEntropyLoss_output_0",
    "CrossEntropyLoss_input_0",
    "CrossEntropyLoss_input_1",
)
_PATTERNS = {
    "weights": r"^(?!gradient/|statistics/|units/)\w+_.*(?<!bias)(?<!put_\d)$",
    "biases": r"^(?!gradient/|statistics/|units/).*bias$",
    "gradients": "^gradient/",
    "losses": f"^{LOSS}$",
    "activations": r"^(?!statistics/|units/).*_output_\d+$",
    "activation_inputs": r"^(?!statistics/|units/).*_input_\d+$",
    "statistics": f"^{STATISTICS_PREFIX}",
    "units": f"^{UNITS_PREFIX}",
}
"""By collection; smdebug's own would take in statistics."""
_REDUCED_COLLECTIONS = ("weights", "gradients", "activations")
_OF_EVERY_TRIAL = ("default", "all")
_WORKER = "worker_0"
_STEPS_PER_INDEX_FOLDER = 1000


def tensor_name(name: str, *, kind: Kind, root: str) -> str:
    """The name that smdebug's hook gives a tensor.

    Args:
        root: class of the network, which the hook puts before the names of parameters.
    """
    if kind in ("weight", "bias"):
        return f"{root}_{name}"
    if kind == "gradient":
        return f"{GRADIENT_PREFIX}{root}_{name}"
    if kind == "input":
        return f"{root}_input_0"
    if kind in ("activation", "activation_input"):
        module, _, number = name.partition(":")
        return f"{module}_{'output' if kind == 'activation' else 'input'}_{number or 0}"
    return {"loss": LOSS, "logits": LOGITS, "labels": LABELS}[kind]


def events_file(trial: Path, *, step: int) -> Path:
    """The file of one step's tensors; steps of all modes are counted together."""
    return trial / "events" / f"{step:012}" / f"{step:012}_{_WORKER}.tfevents"


def index_file(trial: Path, *, step: int) -> Path:
    """The file that says where one step's tensors lie."""
    folder = f"{step // _STEPS_PER_INDEX_FOLDER:09}"
    return trial / "index" / folder / f"{step:012}_{_WORKER}.json"


def collections_file(trial: Path) -> Path:
    """The file that says which tensors belong together."""
    return trial / "collections" / f"{0:09}" / f"{_WORKER}_collections.json"


def end_mark(trial: Path) -> Path:
    """The file by which readers know that no step will follow."""
    return trial / "training_job_end.ts"


def collections() -> dict[str, Any]:
    """The content of `collections_file`."""
    return {
        "collections": {name: _collection(name) for name in (*_OF_EVERY_TRIAL, *_PATTERNS)},
        "_meta": {"num_workers": 1},
    }


def _collection(name: str) -> dict[str, Any]:
    is_reduced = name in _REDUCED_COLLECTIONS
    return {
        "name": name,
        "include_regex": [_PATTERNS[name]] if name in _PATTERNS else [],
        "tensor_names": [],
        "reduction_config": {
            "save_raw_tensor": not is_reduced,
            "reductions": ",".join(REDUCTIONS.values()) if is_reduced else "",
            "save_shape": False,
        },
        "save_config": None,  # what a hook would do next; nobody who reads needs it
        "save_histogram": name != "losses",
    }


# --- tensor events ---
# Tensors as the records of a smdebug event file: TensorFlow's Event messages, framed.
#
# smdebug parses and writes them by Google's protobuf library, which at the version that it is
# tied to has no compiled form for Python 3.11: a third of a millisecond a tensor, a second a
# look. The messages are few and fixed, so they are put together and taken apart here; tests
# hold both against smdebug's own.
#
# Event         1 wall_time, 2 step, 5 summary
# Summary       1 value
# Value         1 tag, 8 tensor, 9 metadata (two plug-ins: mode_step, mode)
# TensorProto   1 type, 2 shape (2 dim: 1 size, 2 name), 4 content
#
# https://protobuf.dev/programming-guides/encoding/; the framing is TFRecord's, whose checksum
# of the content smdebug replaces by that of a constant.

_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_TYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "uint16": 17,
    "float16": 19,
}
_NUMPY = {number: np.dtype(name) for name, number in _TYPES.items()}
_HEADER, _FOOTER = 12, 4
"""Bytes before and after an event in its file."""
_CASTAGNOLI, _MASK = 0x82F63B78, 0xA282EAD8
"""CRC-32C's polynomial, bits reversed, and what TFRecord adds to the sum."""
_MAX_SHIFTED = 63
"""Bits before the last seven of an integer; of garbage one could go on for megabytes."""


def encode_record(
    name: str, value: NDArray[Any], *, step: int, mode: int, mode_step: int, time: float
) -> bytes:
    """One tensor as a framed record.

    Args:
        step: of both modes together.
        mode: smdebug's number: 1 for training, 2 for evaluation.
        time: seconds since 1970.
    """
    shape = b"".join(
        _field(2, _number(1, size) + _field(2, f"{name}_{size}".encode())) for size in value.shape
    )
    tensor = (
        _number(1, _TYPES[value.dtype.name])
        + _field(2, shape)
        + _field(4, np.ascontiguousarray(value).tobytes())
    )
    summary = _field(1, name.encode()) + _field(8, tensor) + _field(9, _metadata(mode, mode_step))
    event = (
        _key(1, _FIXED64)
        + struct.pack("<d", time)
        + _number(2, step)
        + _field(5, _field(1, summary))
    )
    header = struct.pack("<Q", len(event))
    return header + _checksum(header) + event + _checksum(b"0x12345678")


def decode_record(record: bytes) -> NDArray[Any] | None:
    """The tensor of a framed record, without a copy; None: it holds something else, or is torn."""
    content = memoryview(record)[_HEADER : len(record) - _FOOTER]
    if len(content) != int.from_bytes(record[:8], "little"):
        return None
    try:
        for number in (5, 1, 8):  # event, summary, value, tensor
            found = _first(content, number)
            if found is None:
                return None
            content = found
        return _tensor(content)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # no such message
        return None


def _tensor(message: memoryview) -> NDArray[Any] | None:
    kind, shape, content = 0, [], memoryview(b"")
    for number, value in _fields(message):
        if number == 1:
            kind = int(value)
        elif number == 2:
            shape = [_size(dimension) for one, dimension in _fields(value) if one == 2]
        elif number == 4:
            content = value
    if kind not in _NUMPY:
        return None
    array: NDArray[Any] = np.frombuffer(content, dtype=_NUMPY[kind])
    return array.reshape(shape)


def _size(dimension: Any) -> int:  # noqa: ANN401 - a field's value
    return next((int(value) for number, value in _fields(dimension) if number == 1), 0)


def _first(message: memoryview, wanted: int) -> memoryview | None:
    return next((value for number, value in _fields(message) if number == wanted), None)


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message's fields: integers, or what lies in them."""
    position, end = 0, len(message)
    while position < end:
        key, position = _read_varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _read_varint(message, position)
            yield key >> 3, value
        elif kind == _LENGTH:
            length, position = _read_varint(message, position)
            yield key >> 3, message[position : position + length]
            position += length
        elif kind == _FIXED64:
            position += 8
        else:
            position += 4


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > _MAX_SHIFTED:
            raise ValueError("an integer of more than 64 bits")


@lru_cache(maxsize=64)
def _metadata(mode: int, mode_step: int) -> bytes:
    return _plugin(b"mode_step", mode_step) + _plugin(b"mode", mode)


def _plugin(name: bytes, value: int) -> bytes:
    return _field(1, _field(1, name) + _field(2, str(value).encode()))


def _field(number: int, content: bytes) -> bytes:
    return _key(number, _LENGTH) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(value)


@lru_cache(maxsize=64)
def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


@lru_cache(maxsize=4096)  # nearly all are short lengths: a third of the time of a record
def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


@lru_cache(maxsize=4096)
def _checksum(content: bytes) -> bytes:
    """CRC-32C, rotated and shifted as TFRecord asks, so that it may be summed again."""
    remainder = 0xFFFFFFFF
    for byte in content:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (_CASTAGNOLI if remainder & 1 else 0)
    crc = remainder ^ 0xFFFFFFFF
    masked = (crc >> 15 | crc << 17 & 0xFFFFFFFF) + _MASK
    return struct.pack("<I", masked & 0xFFFFFFFF)
