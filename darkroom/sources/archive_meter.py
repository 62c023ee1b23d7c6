"""What comes out of an archive, counted as it comes out: headers may lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from darkroom.errors import UserError
from darkroom.sources.listing import too_many_files

LARGEST_RATIO = 200
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
        if unpacked_bytes > max(HARMLESS_BYTES, LARGEST_RATIO * self.packed_bytes):
            raise UserError(
                f"archive {str(self.archive)!r} unpacks to more than {LARGEST_RATIO} times its "
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
