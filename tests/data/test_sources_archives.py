"""Archives: unpacked once, only into their folder, only within the limits."""

import gzip
import io
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.base.errors import UserError
from darkroom.data import local
from darkroom.data.archives import HARMLESS_BYTES, is_archive, list_archive
from darkroom.data.listing import HIDDEN
from darkroom.data.local import Unpacked, unpack
from old_zips import zip_in

_FILES = {"data/cat/1.jpg": b"cat" * 500, "data/dog/2.jpg": b"dog" * 500}
_FORMATS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


def _pack(path: Path, files: dict[str, bytes], *, kind: str = "zip") -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{kind.partition('.')[2]}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _tar_with(path: Path, info: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.addfile(info, io.BytesIO(b"\0" * info.size))
    return path


def _unpack(archive: Path, *, bytes_: int = 10**9, files: int = 1000) -> Unpacked:
    store = archive.parent / "store"
    return unpack(archive, store=store, maximum_bytes=bytes_, maximum_files=files)


def _refused(archive: Path, **limits: int) -> str:
    """The message of the refusal; nothing may have been written."""
    with pytest.raises(UserError) as refusal:
        _unpack(archive, **limits)
    assert list((archive.parent / "store" / "unpacked").iterdir()) == []
    return str(refusal.value)


@pytest.mark.parametrize("kind", _FORMATS)
def test_every_format_is_recognised_by_its_content(tmp_path, kind):
    unpacked = _unpack(_pack(tmp_path / "no-extension", _FILES, kind=kind))
    found = {
        str(path.relative_to(unpacked.folder)): path.read_bytes()
        for path in unpacked.folder.rglob("*")
        if path.is_file()
    }
    assert found == _FILES


@pytest.mark.parametrize("kind", _FORMATS)
def test_listing_an_archive_shows_what_unpacking_would_write(tmp_path, kind):
    archive = _pack(tmp_path / "a", {**_FILES, "__MACOSX/._1.jpg": b"x"}, kind=kind)
    listing = list_archive(archive, maximum_bytes=10**6, maximum_files=10)
    assert {file.path: file.size for file in listing.files} == dict.fromkeys(_FILES, 1500)
    assert listing.left_out == {HIDDEN: 1}
    assert not (tmp_path / "store").exists()


def test_the_same_content_is_unpacked_once_whatever_its_name(tmp_path, monkeypatch):
    first = _unpack(_pack(tmp_path / "a.zip", _FILES))
    (tmp_path / "b.zip").write_bytes((tmp_path / "a.zip").read_bytes())
    monkeypatch.setattr(local, "safe_entries", _must_not_run)
    assert _unpack(tmp_path / "b.zip") == first


@pytest.mark.parametrize("change", ["write_bytes", "unlink", "add"])
def test_what_was_changed_after_unpacking_is_unpacked_again(tmp_path, change):
    archive = _pack(tmp_path / "a.zip", _FILES)
    folder = _unpack(archive).folder
    if change == "add":
        (folder / "data/cat/other.jpg").write_bytes(b"x")
    elif change == "unlink":
        (folder / "data/cat/1.jpg").unlink()
    else:
        (folder / "data/cat/1.jpg").write_bytes(b"dog" * 500)
    assert _unpack(archive).folder == folder
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.jpg")}
    assert found == _FILES.keys()
    assert (folder / "data/cat/1.jpg").read_bytes() == _FILES["data/cat/1.jpg"]


def _must_not_run(*_args: object, **_options: object) -> None:
    raise AssertionError("unpacked again")


def test_changed_content_is_unpacked_anew(tmp_path):
    first = _unpack(_pack(tmp_path / "a.zip", _FILES))
    second = _unpack(_pack(tmp_path / "a.zip", {"data/cow/1.jpg": b"cow"}))
    assert first.folder != second.folder
    assert (second.folder / "data/cow/1.jpg").read_bytes() == b"cow"


def test_hidden_and_system_files_are_not_written_but_counted(tmp_path):
    hidden = {"__MACOSX/data/._1.jpg": b"x", "data/.DS_Store": b"x", "data/Thumbs.db": b"x"}
    archive = _pack(tmp_path / "a.zip", {**_FILES, **hidden})
    for _ in range(2):
        unpacked = _unpack(archive)
        assert unpacked.left_out == {HIDDEN: 3}
    assert sum(path.is_file() for path in unpacked.folder.rglob("*")) == len(_FILES)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
    "name", ["../evil.jpg", "data/../../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"]
)
def test_entries_that_would_be_written_elsewhere_are_refused_by_name(tmp_path, kind, name):
    message = _refused(_pack(tmp_path / "a", {**_FILES, name: b"evil"}, kind=kind))
    assert repr(name) in message
    assert "Nothing was written" in message
    assert not list(tmp_path.rglob("evil*"))


def test_all_refused_entries_are_named_at_once(tmp_path):
    message = _refused(_pack(tmp_path / "a.tar", {"../a": b"", "/b": b""}, kind="tar"))
    assert "'../a' leads out of the folder" in message
    assert "'/b' is an absolute path" in message


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "link to '/etc/passwd'"),
        (tarfile.LNKTYPE, "link to '/etc/passwd'"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, message):
    info = tarfile.TarInfo("data/cat/1.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    assert f"'data/cat/1.jpg' is a {message}" in _refused(_tar_with(tmp_path / "a.tar", info))


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("data/cat/1.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "'data/cat/1.jpg' is a link or device" in _refused(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_unpacked_size_is_limited(tmp_path, kind):
    archive = _pack(tmp_path / "a", _FILES, kind=kind)
    assert "more than 2,000 bytes" in _refused(archive, bytes_=2000)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_number_of_entries_is_limited(tmp_path, kind):
    assert "more than 1 files" in _refused(_pack(tmp_path / "a", _FILES, kind=kind), files=1)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused_by_its_ratio(tmp_path, kind):
    archive = _pack(tmp_path / "a", {"cat/1.bmp": bytes(HARMLESS_BYTES + 1)}, kind=kind)
    assert "decompression bomb" in _refused(archive)


def test_listing_a_bomb_refuses_it_too(tmp_path):
    archive = _pack(tmp_path / "a", {"cat/1.bmp": bytes(HARMLESS_BYTES + 1)}, kind="tar.gz")
    with pytest.raises(UserError, match="decompression bomb"):
        list_archive(archive, maximum_bytes=10**9, maximum_files=10)


def test_a_zip_that_understates_a_size_is_damaged_not_unpacked(tmp_path):
    archive = _pack(tmp_path / "a.zip", {"cat/1.bmp": bytes(100_000)})
    lie = archive.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    archive.write_bytes(lie)
    assert "cannot be read" in _refused(archive)


def test_a_tar_header_that_claims_a_giant_name_is_not_read_into_memory(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**40
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240 - 512))
    assert "larger than any name" in _refused(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", _FORMATS)
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2 - 7], None])
def test_a_truncated_or_empty_archive_is_refused(tmp_path, kind, damage: Callable | None):
    archive = _pack(tmp_path / "a", {f"cat/{i}.jpg": bytes([i]) * 700 for i in range(9)}, kind=kind)
    archive.write_bytes(damage(archive.read_bytes()) if damage else b"")
    message = _refused(archive)
    assert ("cannot be read" if damage else "no archive") in message


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = _pack(tmp_path / "a.zip", {"cat/1.jpg": b"x"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert "'cat/1.jpg' is encrypted" in _refused(archive)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "page.zip").write_text("<html>Not found</html>")
    assert not is_archive(tmp_path / "page.zip")
    assert "no archive that can be read" in _refused(tmp_path / "page.zip")


def test_a_compressed_file_that_holds_no_tar_is_refused(tmp_path):
    import gzip

    (tmp_path / "a.gz").write_bytes(gzip.compress(b"just text"))
    assert "cannot be read" in _refused(tmp_path / "a.gz")


def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path):
    archive = _pack(tmp_path / "a.tar", {"cat": b"file", "cat/1.jpg": b"below"}, kind="tar")
    assert "'cat/1.jpg'" in _refused(archive)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(("file", "below"), [("cat", "cat/1.jpg"), ("a/b", "a/b/c/d/1.jpg")])
def test_a_file_below_a_file_is_refused_however_deep(tmp_path, kind, file, below):
    archive = _pack(tmp_path / "archive", {below: b"1", file: b"2"}, kind=kind)
    with pytest.raises(UserError, match=f"'{file}' is a file and a folder"):
        list_archive(archive, maximum_bytes=10**6, maximum_files=10)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_as_many_entries_as_are_allowed_are_taken(tmp_path, kind):
    archive = _pack(tmp_path / "archive", _FILES, kind=kind)
    listing = list_archive(archive, maximum_bytes=10**6, maximum_files=len(_FILES))
    assert {file.path for file in listing.files} == _FILES.keys()


def test_paths_with_backslashes_become_folders(tmp_path):
    unpacked = _unpack(_pack(tmp_path / "a.tar", {"data\\cat\\1.jpg": b"cat"}, kind="tar"))
    assert (unpacked.folder / "data/cat/1.jpg").read_bytes() == b"cat"


def _header(name: str, *, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def _extended(record: str) -> bytes:
    """A pax header of one record, whose length counts itself, before a small file."""
    line = f"{len(record) + 4} {record}\n".encode()
    assert len(line) == len(record) + 4
    extension = _header("x", size=len(line), kind=tarfile.XHDTYPE) + line.ljust(512, b"\0")
    return extension + _header("cat/1.jpg", size=512, kind=tarfile.REGTYPE) + b"x" * 512


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((_header("x", size=512, kind=tarfile.GNUTYPE_LONGNAME) + b"x" * 512) * 2000, "recursion"),
        (_extended("GNU.sparse.size=x"), "cannot be read: invalid literal"),
        (_extended("GNU.sparse.map=x,y"), "cannot be read: invalid literal"),
        (_extended("size=-1536"), "negative size"),
    ],
)
def test_headers_that_lead_tarfile_astray_are_refused(tmp_path, kind, content, message):
    whole = content + bytes(1024)
    archive = tmp_path / f"a.{kind}"
    archive.write_bytes(gzip.compress(whole) if kind == "tar.gz" else whole)
    with pytest.raises(UserError, match=message):
        list_archive(archive, maximum_bytes=10**9, maximum_files=1000)


def _listed(path: Path, **how: str) -> list[str]:
    listing = list_archive(path, maximum_bytes=10**9, maximum_files=10**6, **how)
    return [file.path for file in listing.files]


JAPANESE = ["ソファ/1.jpg", "ソックス/1.jpg", "帽子/1.jpg"]


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("utf-8", ["café/1.jpg", "thé/1.jpg"]),
        ("utf-8", JAPANESE),
        ("cp437", ["Münze/1.jpg", "Äpfel/2.jpg"]),
        ("cp1252", ["Münze/1.jpg", "café/2.jpg"]),
    ],
)
def test_names_without_the_mark_of_utf_8_are_what_they_can_only_be(tmp_path, encoding, names):
    archive = zip_in(encoding, tmp_path / "a.zip", {name: name.encode() for name in names})
    assert _listed(archive) == sorted(names)


@pytest.mark.parametrize(
    ("encoding", "names"), [("cp932", JAPANESE), ("gbk", ["猫/1.jpg", "沙发/1.jpg"])]
)
def test_names_of_several_possible_encodings_are_refused_or_read_as_told(tmp_path, encoding, names):
    archive = zip_in(encoding, tmp_path / "a.zip", {name: name.encode() for name in names})
    refusal = _refused(archive)
    first = min(names, key=lambda name: name.encode(encoding))
    assert f"as {encoding}: {first!r}" in refusal
    assert "data.zip_encoding" in refusal
    assert _listed(archive, zip_encoding=encoding) == sorted(names)
    how = {"maximum_bytes": 10**9, "maximum_files": 99, "zip_encoding": encoding}
    folder = unpack(archive, store=tmp_path / "store", **how).folder
    assert (folder / names[0]).read_bytes().decode() == names[0]


def test_an_encoding_that_does_not_fit_is_refused(tmp_path):
    archive = zip_in("cp1252", tmp_path / "a.zip", {"café": b"x"})
    with pytest.raises(UserError, match=r"not 'utf-8', as data\.zip_encoding .*says"):
        _listed(archive, zip_encoding="utf-8")


def test_a_name_that_an_extra_field_has_in_unicode_is_taken_from_there(tmp_path):
    name, raw = "ソファ/1.jpg", "ソファ/1.jpg".encode("cp932")
    field = b"\x01" + zlib.crc32(raw).to_bytes(4, "little") + name.encode()
    extra = b"\x75\x70" + len(field).to_bytes(2, "little") + field
    archive = zip_in("cp932", tmp_path / "a.zip", {name: b"x"}, extra=extra)
    assert _listed(archive) == [name]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_name_that_comes_twice_with_other_content_is_refused(tmp_path, kind):
    archive = _packed_twice(tmp_path / "a", kind=kind, second=b"other")
    with pytest.raises(UserError, match=r"'cat/1\.jpg' comes twice, with other content"):
        _listed(archive)
    assert "comes twice" in _refused(archive)


def test_the_same_entry_twice_in_a_zip_is_one(tmp_path):
    archive = _packed_twice(tmp_path / "a", kind="zip", second=b"first")
    assert _listed(archive) == ["cat/1.jpg"]
    assert (_unpack(archive).folder / "cat/1.jpg").read_bytes() == b"first"


def _packed_twice(path: Path, *, kind: str, second: bytes) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("cat/1.jpg", b"first")
                archive.writestr("cat/1.jpg", second)
            return path
    with tarfile.open(path, f"w:{kind.partition('.')[2]}") as archive:
        for content in (b"first", second):
            info = tarfile.TarInfo("cat/1.jpg")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (98, "PPMd"), (77, "method 77")]
)
def test_a_compression_that_cannot_be_read_is_named_before_anything_is_unpacked(
    tmp_path, method, name
):
    archive = _pack(tmp_path / "a.zip", {"cat/1.jpg": b"x" * 99, "cat/2.jpg": b"y"})
    content = bytearray(archive.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 10 : at + 12] = method.to_bytes(2, "little")
    archive.write_bytes(content)
    assert f"'cat/1.jpg' is compressed by {name}, which cannot be read" in _refused(archive)
    with pytest.raises(UserError, match=name):
        _listed(archive)


def test_an_entry_without_a_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as other:
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = ""
        other.writestr(info, b"content")
    assert "'' has no name" in _refused(tmp_path / "b.zip")


@pytest.mark.parametrize("name", ["x" * 256 + ".jpg", "cat/" + "é" * 128, "."])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    message = _refused(_pack(tmp_path / "a.tar", {name: b"x"}, kind="tar"))
    assert "more than 255 bytes" in message or "no usable file name" in message


def test_a_tar_with_a_name_that_is_not_utf_8_is_refused_by_name(tmp_path):
    with tarfile.open(
        tmp_path / "a.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT
    ) as archive:
        archive.addfile(tarfile.TarInfo("café/1.jpg"))
    assert "is no usable file name" in _refused(tmp_path / "a.tar")


def test_countless_empty_entries_are_refused_before_they_are_read(tmp_path, monkeypatch):
    count = 150_000
    header = struct.pack(
        "<4s4B4HL2L5H2L", b"PK\x01\x02", *[20, 3, 20, 0], *[0] * 4, *[0] * 3, 6, *[0] * 6
    )
    directory = b"".join(header + b"%06d" % number for number in range(count))
    wide = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), 0
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"PK\x03\x04" + directory + wide + locator + end)
    monkeypatch.setattr(zipfile, "ZipFile", _must_not_run)
    with pytest.raises(UserError, match=r"150,000 entries in .* leaves no room for images"):
        list_archive(archive, maximum_bytes=10**9, maximum_files=10**6)
    with pytest.raises(UserError, match="more than 1,000 files"):
        list_archive(archive, maximum_bytes=10**9, maximum_files=1000)


def test_names_that_are_one_on_this_disk_are_refused(tmp_path, monkeypatch):
    """A disk that does not tell cases apart: the second file is there already."""
    original = Path.open

    def insensitive(path: Path, mode: str = "r", *more: object, **options: object) -> object:
        path = path.with_name(path.name.lower()) if mode == "xb" else path
        return original(path, mode, *more, **options)

    archive = _pack(tmp_path / "a.zip", {"cat/a.jpg": b"one", "cat/A.jpg": b"two"})
    monkeypatch.setattr(Path, "open", insensitive)
    assert "'cat/A.jpg'" in _refused(archive)
