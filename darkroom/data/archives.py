"""Reading the entries of zip and tar archives, hostile ones included.

What an archive is, is decided by its content, not its name. Nothing is written here.
"""

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal, Protocol, Self, cast

from darkroom.base.errors import UserError
from darkroom.data.listing import (
    HIDDEN,
    IMAGE_START_BYTES,
    FileEntry,
    LeftOut,
    Listing,
    begins_like_an_image,
    inner_path,
    is_hidden,
    too_many_files,
    unsafe_reason,
)
from darkroom.data.zip_names import read_names

# --- archive meter ---
# What comes out of an archive, counted as it comes out: headers may lie.

MAX_RATIO = 200
"""Unpacked to packed size beyond which an archive counts as a bomb.

Photographs hardly shrink (about 1:1) and uncompressed bitmaps of drawings shrink to a
hundredth at best, while DEFLATE reaches 1032:1 on zeros.
"""

HARMLESS_BYTES = 64 * 2**20
"""Up to this unpacked size any ratio is accepted."""


@dataclass
class Meter:
    """Counts the bytes and entries of one archive and stops at the limits."""

    archive: Path
    packed_bytes: int
    maximum_bytes: int
    maximum_files: int
    unpacked_bytes: int = 0
    entries: int = 0

    @classmethod
    def of(cls, archive: Path, *, maximum_bytes: int, maximum_files: int) -> Self:
        """A meter for the archive, with nothing counted yet."""
        size = archive.stat().st_size
        return cls(archive, size, maximum_bytes=maximum_bytes, maximum_files=maximum_files)

    def count_entry(self) -> None:
        """One entry more.

        Raises:
            UserError: more entries than allowed.
        """
        self.entries += 1
        if self.entries > self.maximum_files:
            raise UserError(too_many_files(str(self.archive), maximum_files=self.maximum_files))

    def count_bytes(self, amount: int) -> None:
        """More unpacked bytes.

        Raises:
            UserError: more bytes, or more for each packed byte, than allowed.
        """
        self.unpacked_bytes += amount
        self.check_claim(self.unpacked_bytes)

    def check_claim(self, unpacked_bytes: int) -> None:
        """Check a size against the limits, such as what the headers claim beforehand.

        Raises:
            UserError: more bytes, or more for each packed byte, than allowed.
        """
        if unpacked_bytes > self.maximum_bytes:
            raise UserError(
                f"archive {str(self.archive)!r} unpacks to more than {self.maximum_bytes:,} "
                "bytes. If that is meant, raise data.maximum_archive_bytes."
            )
        if unpacked_bytes > max(HARMLESS_BYTES, MAX_RATIO * self.packed_bytes):
            raise UserError(
                f"archive {str(self.archive)!r} unpacks to more than {MAX_RATIO} times its "
                f"size of {self.packed_bytes:,} bytes, as a decompression bomb does. "
                "If the data is genuine, unpack it yourself and give the folder."
            )


class Readable(Protocol):
    """What is needed of an open entry."""

    def read(self, size: int = -1, /) -> bytes: ...

    def close(self) -> None: ...


class MeteredReader:
    """A binary file whose reads are counted."""

    def __init__(self, source: Readable, *, meter: Meter) -> None:
        self._source, self._meter = source, meter

    def read(self, size: int = -1, /) -> bytes:
        """Read and count; a limit that is passed raises UserError."""
        chunk = self._source.read(size)
        self._meter.count_bytes(len(chunk))
        return chunk

    def close(self) -> None:
        """Close the file below."""
        self._source.close()


# --- archives ---

_Format = Literal["zip", "gzip", "bzip2", "xz", "tar"]
_MAGIC: dict[bytes, _Format] = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_OTHERS: dict[bytes, str] = {
    b"Rar!\x1a\x07": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\x04\x22\x4d\x18": "compressed by LZ4",
    b"\x1f\x9d": "compressed by compress",
    b"PK\x07\x08": "a part of a zip that was split",
    b"version https://git-lfs": "Git LFS's pointer to a file, not the file",
    b"PAR1": "a Parquet table",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
}
"""How else what was meant to be an archive may begin."""
_HTML = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b",
    re.DOTALL | re.IGNORECASE,
)
_TAR_BLOCK_BYTES = 512
START_BYTES = _TAR_BLOCK_BYTES
"""Of a file, that say which archive it is."""
_ZIP_END, _ZIP64_END = b"PK\x05\x06", b"PK\x06\x06"
_MAX_ZIP_END_BYTES = 22 + 65_535 + 20 + 56
"""Of the records at a zip's end, with the longest comment."""
_MANY_ENTRIES, _MIN_ENTRY_BYTES = 100_000, 128
"""Bytes of an entry with its two headers and names, and the smallest of images in it."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_OTHER_COMPRESSIONS = {
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    20: "Zstandard",
    93: "Zstandard",
    94: "MP3",
    95: "XZ",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
}
_MAX_TAR_NAME_BYTES = 1 << 20
_REFUSALS_SHOWN = 10
_SHOWN_BYTES = 60
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    ValueError,  # numbers in a tar's headers that are none, text that is none
    RecursionError,  # headers that announce headers that announce headers …
)


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One entry of an archive."""

    name: str
    size: int
    """Bytes, as its header claims."""
    is_folder: bool
    refusal: str | None
    """Why the entry must not be written, such as a link or a path out of the folder."""
    open: Callable[[], Readable]
    crc: int | None = None
    """Of the content, where the header has it."""

    @property
    def path(self) -> str:
        """The name in canonical form; only for entries that are not refused."""
        return inner_path(self.name)

    @property
    def is_hidden(self) -> bool:
        """Whether the entry is a hidden or system file, which is never written."""
        return is_hidden(self.path)


def is_archive(path: Path) -> bool:
    """Whether a file's content is that of an archive that can be read."""
    return _format_of(path) is not None


def is_archive_start(start: bytes) -> bool:
    """`is_archive` of content that begins with these bytes: `START_BYTES` of them, or all."""
    return _format_of_start(start) is not None


def is_tar_start(start: bytes) -> bool:
    """`is_archive_start` of a tar that is not compressed."""
    return _format_of_start(start) == "tar"


def is_web_page(start: bytes) -> bool:
    """Whether content that begins so is HTML, as a server sends in place of a file."""
    return _HTML.match(start.removeprefix(b"\xef\xbb\xbf")) is not None


def what_begins(start: bytes) -> str:
    """What no archive is, by its first bytes, in words that follow 'it is'."""
    if not start:
        return "empty"
    if is_web_page(start):
        return "a web page (HTML), as a server sends in place of a file"
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            return name
    try:
        text = start[:_SHOWN_BYTES].decode()
    except UnicodeDecodeError:
        return "of a kind that is not known"
    return f"a text that begins with {text!r}"


def list_archive(
    path: Path, *, maximum_bytes: int, maximum_files: int, zip_encoding: str = ""
) -> Listing:
    """The files of an archive by their headers, within the limits; nothing is unpacked.

    Args:
        maximum_bytes: of all files together, unpacked, as the headers have it.
        maximum_files: entries of any kind, folders and hidden files among them.
        zip_encoding: of a zip's names that are not marked as UTF-8, such as cp932; empty: found
            out.

    Raises:
        UserError: no archive, damaged, beyond a limit, or with entries that are refused.
    """
    meter = Meter.of(path, maximum_bytes=maximum_bytes, maximum_files=maximum_files)
    files: list[FileEntry] = []
    left_out = LeftOut()
    for entry in safe_entries(path, meter=meter, zip_encoding=zip_encoding):
        if entry.is_folder:
            continue
        if entry.is_hidden:
            left_out.add(HIDDEN, entry.path)
        else:
            files.append(FileEntry(entry.path, entry.size, is_image=_is_image(entry)))
    return Listing(tuple(sorted(files, key=lambda file: file.path)), left_out)


def safe_entries(path: Path, *, meter: Meter, zip_encoding: str = "") -> Iterator[ArchiveEntry]:
    """The entries of an archive, in its order. Read each before asking for the next.

    After the first entry that is refused no more are given, but all are looked at. A file that
    comes a second time with the same content is passed over.

    Args:
        zip_encoding: of a zip's names that are not marked as UTF-8; empty: what they can only be.

    Raises:
        UserError: no archive, damaged, or beyond a limit; at the end, if any was refused.
    """
    refused: list[str] = []
    files: dict[str, tuple[int, int | None]] = {}
    with damage_explained(path):
        for entry in _entries(path, meter=meter, zip_encoding=zip_encoding):
            meter.count_entry()
            refusal = entry.refusal or _refusal_of_name(entry, files=files)
            if refusal:
                refused.append(f"{entry.name!r} {refusal}")
            elif entry.is_folder:
                if not refused:
                    yield entry
            elif entry.path not in files:
                files[entry.path] = (entry.size, entry.crc)
                if not refused:
                    yield entry
    refused += [f"{name!r} is a file and a folder" for name in _files_with_files_below(files)]
    if refused:
        raise UserError(_refusal_message(path, refused=refused))


def _is_image(entry: ArchiveEntry) -> bool:
    """Whether it is an image by its content, where its name has no extension."""
    if "." in entry.path.rpartition("/")[2]:
        return False
    with closing(entry.open()) as file:
        return begins_like_an_image(file.read(IMAGE_START_BYTES))


def _refusal_of_name(
    entry: ArchiveEntry, *, files: Mapping[str, tuple[int, int | None]]
) -> str | None:
    if entry.is_folder:
        return None
    if entry.path == ".":
        return "is no usable file name"
    first = files.get(entry.path)
    # Packers disagree on which of the two is meant: the last, or the first.
    if first is None or (entry.crc is not None and first == (entry.size, entry.crc)):
        return None
    return "comes twice, with other content"


def _files_with_files_below(files: Mapping[str, object]) -> list[str]:
    folders = {path.rpartition("/")[0] for path in files}
    above = {
        "/".join(parts[:end])
        for parts in (folder.split("/") for folder in folders)
        for end in range(1, len(parts) + 1)
    }
    return sorted(above & files.keys())


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Turn what the archive libraries raise on damaged content into a UserError."""
    try:
        yield
    except _DAMAGE as error:
        raise UserError(_damage_message(path, error=error)) from error
    except OSError as error:
        if error.errno is not None:  # the disk's own trouble, not the content's
            raise
        raise UserError(_damage_message(path, error=error)) from error


def _damage_message(path: Path, *, error: Exception) -> str:
    return (
        f"archive {str(path)!r} cannot be read: {error or 'it ends too early'}. "
        "It may be damaged or only partly copied; fetch or pack it again."
    )


def _refusal_message(path: Path, *, refused: list[str]) -> str:
    more = len(refused) - _REFUSALS_SHOWN
    shown = "; ".join(refused[:_REFUSALS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return (
        f"archive {str(path)!r} has entries that are not unpacked for safety: {shown}. "
        "Nothing was written. Pack the plain files again, each once, without links or such paths."
    )


def _entries(path: Path, *, meter: Meter, zip_encoding: str) -> Iterator[ArchiveEntry]:
    kind = _format_of(path)
    if kind is None:
        raise UserError(not_an_archive(str(path), start=_start_of(path)))
    return (
        _zip_entries(path, meter=meter, encoding=zip_encoding)
        if kind == "zip"
        else _tar_entries(path, kind=kind, meter=meter)
    )


def not_an_archive(name: str, *, start: bytes) -> str:
    """The message for what should be an archive, and begins otherwise."""
    return (
        f"{name!r} is no archive that can be read: it is {what_begins(start)}. Give a .zip, .tar, "
        ".tar.gz, .tar.bz2 or .tar.xz (its content counts, not its name), or a folder."
    )


def _format_of(path: Path) -> _Format | None:
    return _format_of_start(_start_of(path))


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(START_BYTES)


def _format_of_start(start: bytes) -> _Format | None:
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    return "tar" if _is_tar_header(start) else None


def _is_tar_header(block: bytes) -> bool:
    """Whether a block's checksum is that of a header; older tars have no other mark."""
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _zip_entries(path: Path, *, meter: Meter, encoding: str) -> Iterator[ArchiveEntry]:
    _check_number_of_entries(path, meter=meter)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        meter.check_claim(sum(info.file_size for info in infos))
        found = read_names(infos, encoding=encoding)
        if found.problem:
            raise UserError(f"archive {str(path)!r} cannot be read: {found.problem}.")
        for info, name in zip(infos, found.names, strict=True):
            yield ArchiveEntry(
                name=name,
                size=info.file_size,
                is_folder=name.endswith(("/", "\\")),
                refusal=unsafe_reason(name) or _zip_refusal(info),
                open=partial(_open_in_zip, archive, info=info, meter=meter),
                crc=info.CRC,
            )


def _check_number_of_entries(path: Path, *, meter: Meter) -> None:
    """Refuse a zip of countless empty files before its directory is read into memory.

    Raises:
        UserError: more entries than allowed, or than there is room for images.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _MAX_ZIP_END_BYTES))
        end = file.read()
    at = end.rfind(_ZIP_END)
    if at < 0 or at + 12 > len(end):
        return  # zipfile says what is wrong
    entries = int.from_bytes(end[at + 10 : at + 12], "little")
    wide = end.rfind(_ZIP64_END)
    if entries == 0xFFFF and 0 <= wide <= len(end) - 40:
        entries = int.from_bytes(end[wide + 32 : wide + 40], "little")
    if entries > meter.maximum_files:
        raise UserError(too_many_files(str(path), maximum_files=meter.maximum_files))
    if entries > _MANY_ENTRIES and size < entries * _MIN_ENTRY_BYTES:
        raise UserError(
            f"archive {str(path)!r} has {entries:,} entries in {size:,} bytes, which leaves "
            "no room for images in them. Pack the image files alone."
        )


def _open_in_zip(archive: zipfile.ZipFile, *, info: zipfile.ZipInfo, meter: Meter) -> Readable:
    return MeteredReader(archive.open(info), meter=meter)


def _zip_refusal(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in _COMPRESSIONS:
        kind = _OTHER_COMPRESSIONS.get(info.compress_type, f"method {info.compress_type}")
        return f"is compressed by {kind}, which cannot be read here: pack it with Deflate"
    mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where the packer was no Unix
    return None if mode in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or device"


def _tar_entries(path: Path, *, kind: _Format, meter: Meter) -> Iterator[ArchiveEntry]:
    if kind == "tar" and path.stat().st_size % _TAR_BLOCK_BYTES:
        raise EOFError("it ends in the middle of a block")
    with _open_tar(path, kind=kind, meter=meter) as archive:
        for info in archive:
            yield ArchiveEntry(
                name=info.name,
                size=info.size,
                is_folder=info.isdir(),
                refusal=unsafe_reason(info.name) or _tar_refusal(info),
                open=partial(_open_in_tar, archive, info=info),
            )


def _open_in_tar(archive: tarfile.TarFile, *, info: tarfile.TarInfo) -> Readable:
    return cast(IO[bytes], archive.extractfile(info))  # None only for folders and devices


def _tar_refusal(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return f"is a link to {info.linkname!r}"
    if info.issparse():
        return "is a sparse file"
    if info.size < 0:
        return "claims a negative size"
    return None if info.isreg() or info.isdir() else "is a device"


@contextmanager
def _open_tar(path: Path, *, kind: _Format, meter: Meter) -> Iterator[tarfile.TarFile]:
    if kind == "tar":
        meter.check_claim(meter.packed_bytes)
        with tarfile.open(path, mode="r:", tarinfo=ShortNamed) as archive:
            yield archive
        return
    with closing(MeteredReader(_decompressed(path, kind=kind), meter=meter)) as metered:
        stream = cast(IO[bytes], metered)  # a stream is only read, and closed
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=ShortNamed) as archive:
            yield archive


def _decompressed(path: Path, *, kind: _Format) -> IO[bytes]:
    if kind == "gzip":
        return cast(IO[bytes], gzip.open(path))
    return cast(IO[bytes], bz2.open(path) if kind == "bzip2" else lzma.open(path))


class ShortNamed(tarfile.TarInfo):
    """Refuses the headers that tarfile would read into memory whole, whatever their size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "ShortNamed":
        info = super().frombuf(buf, encoding, errors)
        if not (info.isreg() or info.isdir()) and info.size > _MAX_TAR_NAME_BYTES:
            raise tarfile.ReadError("a header claims to be larger than any name or attribute")
        return info
