"""Archives: unpacked once, only into their folder, only within the limits."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.errors import UserError
from darkroom.sources import unpacking
from darkroom.sources.archive_meter import HARMLESS_BYTES
from darkroom.sources.archives import is_archive, list_archive
from darkroom.sources.listing import HIDDEN
from darkroom.sources.unpacking import Unpacked, unpack

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
    monkeypatch.setattr(unpacking, "safe_entries", _must_not_run)
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
