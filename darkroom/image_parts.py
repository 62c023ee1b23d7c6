"""The parts that an encoded image consists of, looked at before a decoder goes through them all.

Pillow goes through a PNG's chunks and a JPEG's segments in Python: 400,000 empty ones, in
5 MB, took 2.7 s; 6,000 colour profiles that unpack to a megabyte each, 22 s.
"""

import re
import struct

MAXIMUM_PARTS = 20_000
"""Encoders write some 8 KB of pixels to a PNG's chunk: 100 MB are 12,500 chunks."""

MAXIMUM_NOTES = 1000
"""Segments of a JPEG before its first scan, and chunks of a PNG that hold no pixels: a colour
profile is cut into 255 segments at most, and editors leave some dozens of others."""

MAXIMUM_PROFILES = 4
"""Colour profiles of a PNG, which may have one; each unpacks to a megabyte."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_START_OF_SCAN = 0xDA
_PIXELS = (b"IDAT", b"fdAT", b"fcTL")
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends a scan: within one, FF is followed by 00, or is the mark of a restart."""
_END_OF_IMAGE = b"\xff\xd9"
_PADDING = bytes(16)


def excess_of_parts(content: bytes) -> str:
    """What there is more of than any encoder writes; empty: nothing."""
    if content.startswith(_PNG):
        return _excess_in_png(content)
    return _excess_in_jpeg(content) if content.startswith(_JPEG) else ""


def without_end_of_scan(content: bytes) -> bytes:
    """A JPEG of one scan without its end mark, so that a scan which ends early shows.

    A decoder that meets the mark too early fills what is missing with grey, and says nothing
    that Pillow passes on. Without the mark it asks for more, and gets zeros that are too few
    for another row. Other files are returned as they are.
    """
    start = _first_scan(content) if content.startswith(_JPEG) else None
    if start is None:
        return content
    end = _MARKER.search(content, start + 2)
    if end is None or end.group() != _END_OF_IMAGE:
        return content  # without an end, or with further scans
    return content[: end.start()] + _PADDING


def webp_size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP's canvas; None: another file, or none that can be read."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    kind = content[12:16]
    if kind == b"VP8X":
        sides = content[24:27], content[27:30]
        width, height = (int.from_bytes(side, "little") + 1 for side in sides)
        return width, height
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _excess_in_png(content: bytes) -> str:
    position, notes, profiles = len(_PNG), 0, 0
    for _ in range(MAXIMUM_PARTS):
        if position + 8 > len(content):
            return ""
        length, name = struct.unpack_from(">I4s", content, position)
        notes += name not in _PIXELS
        profiles += name == b"iCCP"
        if notes > MAXIMUM_NOTES:
            return f"more than {MAXIMUM_NOTES:,} chunks without pixels"
        if profiles > MAXIMUM_PROFILES:
            return f"more than {MAXIMUM_PROFILES} colour profiles"
        position += int(length) + 12  # with length, name and checksum
    return f"more than {MAXIMUM_PARTS:,} chunks"


def _excess_in_jpeg(content: bytes) -> str:
    """Up to the first scan; what comes behind it is the decoder's, which is no Python."""
    position, looked_at = len(_JPEG), 0
    while looked_at < MAXIMUM_NOTES:
        start = content.find(b"\xff", position)
        if start < 0 or start + 4 > len(content) or content[start + 1] == _START_OF_SCAN:
            return ""
        looked_at += 1
        position = _behind_segment(content, start)
    return f"more than {MAXIMUM_NOTES:,} segments"


def _first_scan(content: bytes) -> int | None:
    """Where the marker of the first scan is."""
    position = len(_JPEG)
    for _ in range(MAXIMUM_NOTES):
        start = content.find(b"\xff", position)
        if start < 0 or start + 4 > len(content):
            return None
        if content[start + 1] == _START_OF_SCAN:
            return start
        position = _behind_segment(content, start)
    return None


def _behind_segment(content: bytes, start: int) -> int:
    if content[start + 1] in (0x00, 0xFF):  # stuffing: Pillow looks at each byte of it
        return start + 1
    return start + 2 + int(struct.unpack_from(">H", content, start + 2)[0])
