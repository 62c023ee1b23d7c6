"""Records of event files, held against smdebug's own writer and reader."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from darkroom.debugging.smdebug_format import decode_record, encode_record
from quiet_smdebug import import_smdebug

pytest.importorskip("smdebug", reason="the extra 'debug' is not installed")
import_smdebug()
TYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


def encode(value: np.ndarray[Any, Any], *, name: str = "a/b.weight") -> bytes:
    return encode_record(name, value, step=300, mode=2, mode_step=7, time=1.5)


def smdebugs_record(value: np.ndarray[Any, Any], *, name: str) -> bytes:
    """As smdebug's file writer puts it together."""
    from smdebug.core.modes import ModeKeys
    from smdebug.core.tfevent.proto.event_pb2 import Event
    from smdebug.core.tfevent.proto.summary_pb2 import Summary
    from smdebug.core.tfevent.util import make_tensor_proto
    from smdebug.core.tfrecord.record_writer import CHECKSUM_MAGIC_BYTES, masked_crc32c
    from smdebug.core.writer import FileWriter

    metadata = FileWriter._get_metadata(ModeKeys.EVAL, 7)
    tensor = make_tensor_proto(nparray_data=value, tag=name)
    summary = Summary(value=[Summary.Value(tag=name, metadata=metadata, tensor=tensor)])
    event = Event(summary=summary, wall_time=1.5, step=300).SerializeToString()
    file = io.BytesIO()
    header = len(event).to_bytes(8, "little")
    file.write(header + masked_crc32c(header).to_bytes(4, "little") + event)
    file.write(masked_crc32c(CHECKSUM_MAGIC_BYTES).to_bytes(4, "little"))
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:tostring:DeprecationWarning")  # smdebug's own call
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (2, 130, 1)])
def test_a_record_is_byte_for_byte_smdebugs(kind: str, shape: tuple[int, ...]) -> None:
    value = np.ones(shape, dtype=kind)
    assert encode(value) == smdebugs_record(value, name="a/b.weight")


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=6)),
    st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=200),
)
def test_what_was_written_is_read(value: np.ndarray[Any, Any], name: str) -> None:
    from smdebug.core.tfrecord.tensor_reader import TensorReader

    record = encode(value, name=name)
    np.testing.assert_array_equal(decode_record(record), value)
    ((read_name, step, read, mode, mode_step),) = TensorReader(record).read_tensors()
    assert (read_name, step, mode.name, mode_step) == (name, 300, "EVAL", 7)
    np.testing.assert_array_equal(read, value)


def test_what_is_no_tensor_is_nothing() -> None:
    from smdebug.core.tfevent.proto.event_pb2 import Event

    event = Event(file_version="brain.Event:2", wall_time=1.0).SerializeToString()
    assert decode_record(bytes(12) + event + bytes(4)) is None
