"""How many parts an encoded image consists of, before a decoder goes through them all.

Pillow goes through a PNG's chunks and a JPEG's segments in Python: 400,000 empty ones, in
5 MB, took 2.7 s.
"""

import struct

MAXIMUM_PARTS = 20_000
"""Encoders write some 8 KB of pixels to a PNG's chunk: 100 MB are 12,500 chunks."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_START_OF_SCAN = 0xDA


def has_too_many_parts(content: bytes) -> bool:
    """Whether these are more chunks or segments than any encoder writes."""
    if content.startswith(_PNG):
        return _exceeds_in_png(content)
    return content.startswith(_JPEG) and _exceeds_in_jpeg(content)


def _exceeds_in_png(content: bytes) -> bool:
    position = len(_PNG)
    for _ in range(MAXIMUM_PARTS):
        if position + 4 > len(content):
            return False
        # Length, name, data, checksum.
        position += int(struct.unpack_from(">I", content, position)[0]) + 12
    return True


def _exceeds_in_jpeg(content: bytes) -> bool:
    """Up to the first scan; what comes behind it is the decoder's, which is no Python."""
    position = len(_JPEG)
    for _ in range(MAXIMUM_PARTS):
        start = content.find(b"\xff", position)
        if start < 0 or start + 4 > len(content) or content[start + 1] == _START_OF_SCAN:
            return False
        if content[start + 1] in (0x00, 0xFF):  # stuffing: Pillow looks at each byte of it
            position = start + 1
        else:
            position = start + 2 + int(struct.unpack_from(">H", content, start + 2)[0])
    return True
