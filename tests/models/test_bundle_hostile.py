"""Bundles that somebody tampered with, and files that are none: refused, and the reason said.

Each archive is also a case of what must not happen: nothing is written but the three files,
in the folder that was named, and nothing is read into memory whole because a header says so.
"""

import bz2
import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.base.errors import DarkroomError, UserError
from darkroom.models.bundle import (
    METADATA_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    extract,
    open_bundle,
    pack,
    read_metadata,
    unpack,
)
from small_bundles import rewrite_digests, write_small_bundle

Member = tuple[str, bytes | str]
"""A name with its content, or with what its link leads to."""

ENDLESS = 2**40


class TearsItself:
    """A pickle that would leave a trace when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The files of a bundle that nothing is wrong with."""
    folder = write_small_bundle(tmp_path_factory.mktemp("good") / "bundle")
    return {name: (folder / name).read_bytes() for name in (METADATA_FILE, ONNX_FILE, WEIGHTS_FILE)}


def info(name: str, *, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """One header block."""
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member.tobuf(tarfile.GNU_FORMAT)


def entry(name: str, content: bytes) -> bytes:
    return info(name, size=len(content)) + content + bytes(-len(content) % 512)


def packed(*blocks: bytes) -> bytes:
    return gzip.compress(b"".join([*blocks, bytes(1024)]), compresslevel=1)


def with_extra(*blocks: bytes) -> Callable[[Mapping[str, bytes]], bytes]:
    """The good bundle with something added."""
    return lambda good: packed(*(entry(*file) for file in good.items()), *blocks)


def without(missing: str) -> Callable[[Mapping[str, bytes]], bytes]:
    return lambda good: packed(*(entry(*file) for file in good.items() if file[0] != missing))


def zipped(good: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in good.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def damaged(good: Mapping[str, bytes]) -> bytes:
    content = bytearray(packed(*(entry(*file) for file in good.items())))
    content[len(content) // 3 : len(content) // 3 + 20] = b"\xff" * 20
    return bytes(content)


def bomb(good: Mapping[str, bytes]) -> bytes:
    """300 MB of zeros in 1 MB, of which the header tells the truth."""
    return packed(info(ONNX_FILE, size=300 * 2**20), bytes(2**20))


def pax(name: str, **records: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.pax_headers = records
        tar.addfile(member)
    return buffer.getvalue()[:1536]


LONG_NAME = info("././@LongLink", size=2**33, kind=tarfile.GNUTYPE_LONGNAME)
BACKWARDS = pax("any", size="-512")[:1024] + info(METADATA_FILE, size=512)
CHAIN = (info("x", size=512, kind=tarfile.GNUTYPE_LONGNAME) + b"x" * 512) * 3000

ARCHIVES: Sequence[tuple[str, Callable[[Mapping[str, bytes]], bytes], str]] = [
    ("above", with_extra(entry("../above", b"x")), "unexpected '../above'"),
    ("absolute", with_extra(entry("/absolute", b"x")), "unexpected '/absolute'"),
    ("code", with_extra(entry("code/inference.py", b"x")), r"unexpected 'code/inference\.py'"),
    ("pickle", with_extra(entry("model.pkl", pickle.dumps(TearsItself()))), "unexpected"),
    ("dotted", with_extra(entry("./../model.json", b"x")), r"unexpected '\./\.\./model\.json'"),
    ("folder", with_extra(info("model.json.d", kind=tarfile.DIRTYPE)), "unexpected"),
    ("symlink", with_extra(info(ONNX_FILE, kind=tarfile.SYMTYPE, link="/etc/passwd")), "a link"),
    ("hard link", with_extra(info(ONNX_FILE, kind=tarfile.LNKTYPE, link=WEIGHTS_FILE)), "a link"),
    ("device", with_extra(info(METADATA_FILE, kind=tarfile.CHRTYPE)), "a device"),
    ("pipe", with_extra(info(METADATA_FILE, kind=tarfile.FIFOTYPE)), "unexpected kind"),
    ("twice", with_extra(entry(METADATA_FILE, b"{}")), r"unexpected second 'model\.json'"),
    ("as ./ again", with_extra(entry("./model.json", b"{}")), "unexpected second"),
    ("huge by header", lambda _: packed(info(ONNX_FILE, size=ENDLESS)), "too large"),
    ("bomb", bomb, "too large"),
    ("negative size", lambda _: packed(BACKWARDS), "negative size"),
    ("long name", lambda _: packed(LONG_NAME), "larger than any name"),
    ("chain of names", lambda _: packed(CHAIN), "no readable model bundle"),
    ("infinite time", with_extra(pax("more", mtime="inf")), "unexpected 'more'"),
    ("pax path", with_extra(pax("model.json", path="../../model.json")), "unexpected"),
    ("pax sparse", with_extra(pax("a", **{"GNU.sparse.size": "x"})), "no readable|unexpected"),
    ("half", lambda good: with_extra()(good)[:600], "no readable model bundle"),
    ("damaged", damaged, "no readable model bundle|holds no"),
    ("zip", zipped, "it is a zip"),
    ("bzip2", lambda good: bz2.compress(entry(METADATA_FILE, b"{}")), "no readable"),
    ("pickle alone", lambda _: pickle.dumps(TearsItself()), "no readable"),
    ("torch's file", lambda _: b"PK\x03\x04archive/data.pkl" + bytes(99), "it is a zip"),
    ("gzip alone", lambda _: gzip.compress(b"no tar"), "no readable"),
    ("nothing", lambda _: b"", "no readable"),
    ("no members", lambda _: packed(), r"holds no model\.json, no model\.onnx, no model\.safet"),
    ("no weights", without(WEIGHTS_FILE), r"holds no model\.safetensors"),
]


@pytest.mark.parametrize(
    ("make", "words"), [case[1:] for case in ARCHIVES], ids=[case[0] for case in ARCHIVES]
)
def test_an_archive_that_is_no_bundle_is_refused(
    good: Mapping[str, bytes],
    make: Callable[[Mapping[str, bytes]], bytes],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(make(good))
    inner = tmp_path / "a" / "b"
    with pytest.raises(UserError, match=words) as caught:
        unpack(archive, inner)
    assert str(archive) in str(caught.value)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written <= {"model.tar.gz", *(f"a/b/{name}" for name in good)}
    assert not Path("unpickled").exists()
    assert all(not path.is_symlink() for path in tmp_path.rglob("*"))


def header(text: bytes, *, length: int | None = None) -> bytes:
    """The start of a safetensors file."""
    return struct.pack("<Q", len(text) if length is None else length) + text


def tensor(**change: object) -> bytes:
    return json.dumps(
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | change}
    ).encode()


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (b"", "no safetensors file"),
        (b"no weights at all, but longer than eight bytes", "no safetensors file"),
        (pickle.dumps(TearsItself()), "no safetensors file"),
        (b"PK\x03\x04" + bytes(100), "no safetensors file|holds no tensors"),
        (header(b"{}"), "holds no tensors"),
        (header(b"{}", length=2**62), "no safetensors file"),
        (header(b"[]"), "no safetensors file"),
        (header(b"\xff\xfe"), "no safetensors file"),
        (header(tensor()) + bytes(7), "no safetensors file"),
        (header(tensor()) + bytes(9), "no safetensors file"),
        (header(tensor(data_offsets=[8, 0])) + bytes(8), "no safetensors file"),
        (header(tensor(shape=[2**62, 4])) + bytes(8), "no safetensors file"),
        (header(tensor(dtype="PYTHON")) + bytes(8), "no safetensors file"),
    ],
)
def test_weights_that_are_no_safetensors_are_refused_though_the_digest_is_right(
    weights: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_small_bundle(tmp_path / "bundle")
    (folder / WEIGHTS_FILE).write_bytes(weights)
    rewrite_digests(folder)
    with pytest.raises(UserError, match=rf"model\.safetensors.*({words})"):
        read_metadata(folder)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (b"", "content: Invalid JSON"),
        (b"\xff\xfe{}", "content: Invalid JSON"),
        (b"[" * 100_000, "content: Invalid JSON"),
        (b"[]", "content: Input should be an object"),
        (b"{}", "architecture: Field required"),
        (b" " * (16 * 2**20 + 1), "16,777,217 bytes; at most"),
        (pickle.dumps({}), "content: Invalid JSON"),
    ],
)
def test_metadata_that_is_none_is_refused(metadata: bytes, words: str, tmp_path: Path) -> None:
    folder = write_small_bundle(tmp_path / "bundle")
    (folder / METADATA_FILE).write_bytes(metadata)
    with pytest.raises(UserError, match=f"is not valid bundle metadata: {words}") as caught:
        read_metadata(folder)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("options", [["-czf"], ["--format=pax", "-czf"], ["-cf"]])
def test_a_bundle_that_was_packed_by_tar_is_read(options: list[str], tmp_path: Path) -> None:
    folder = write_small_bundle(tmp_path / "bundle")
    archive = tmp_path / "model.tar.gz"
    subprocess.run(["tar", *options, archive, "-C", folder, "."], check=True)
    with open_bundle(archive) as opened:
        assert read_metadata(opened) == read_metadata(folder)


def test_modes_and_owners_of_an_archive_are_not_taken_over(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a")
    member.mode, member.uid, member.mtime = 0o6777, 12345, 2**33
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(packed(member.tobuf(tarfile.GNU_FORMAT)))
    extract(archive, folder=tmp_path / "into", names=["a"])
    found = (tmp_path / "into" / "a").stat()
    assert found.st_mode & 0o7111 == 0
    assert found.st_uid == os.getuid()


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    folder = write_small_bundle(tmp_path / "bundle")
    pack(folder, tmp_path / "model.tar.gz")
    (folder / METADATA_FILE).write_text("mine")
    with pytest.raises(DarkroomError, match=r"cannot be unpacked: .*exists"):
        unpack(tmp_path / "model.tar.gz", folder)
    assert (folder / METADATA_FILE).read_text() == "mine"


def test_large_weights_of_zeros_are_no_bomb_below_the_harmless_size(tmp_path: Path) -> None:
    content = np.zeros(2**22, dtype=np.float32).tobytes()
    (tmp_path / "model.tar.gz").write_bytes(packed(entry("a", content)))
    extract(tmp_path / "model.tar.gz", folder=tmp_path / "into", names=["a"])
    assert (tmp_path / "into" / "a").stat().st_size == len(content)
