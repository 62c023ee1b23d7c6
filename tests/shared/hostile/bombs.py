"""Small files that would take much: time, or memory."""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from hostile.images import ImageCase, encoded, picture, png_chunk, png_chunks

_BODY = 6 * 2**20 - 4096
"""As much as a request may hold."""


def bombs() -> Iterator[ImageCase]:
    """One of each, and those within the limits that take longest."""
    for name, content in _refused().items():
        yield ImageCase("bomb", name, content, is_refused=True)
    for name, content in _allowed().items():
        yield ImageCase("heavy", name, content)


def _refused() -> dict[str, bytes]:
    plain = encoded(picture(), "PNG")
    return {
        "PNG of 2 billion pixels a side": _png_of(2**31 - 1, 2**31 - 1),
        "PNG of 81 million pixels": encoded(Image.new("1", (9000, 9000)), "PNG"),
        "PNG of 1×20000": encoded(Image.new("1", (1, 20_000)), "PNG"),
        "PNG of 20000×1": encoded(Image.new("1", (20_000, 1)), "PNG"),
        "PNG of no pixels": _png_of(0, 0),
        "BMP of 2 billion pixels": _bmp_of(46_000, 46_000),
        "BMP of negative size": _bmp_of(-100, 100),
        "JPEG of 65535×65535": _jpeg_of(65_535, 65_535),
        "zTXt of 200 MB": _with_chunk(plain, b"zTXt", b"k\0\0" + _zeros(200)),
        "iCCP of 200 MB": _with_chunk(plain, b"iCCP", b"k\0\0" + _zeros(200)),
        "PNG with 400,000 chunks": _many_chunks(encoded(picture(), "PNG")),
        "JPEG with 1,500,000 comments": _many_comments(encoded(picture(), "JPEG")),
        "scans without end": _scans(picture(800, 600)),
        "scans without end, behind an MPO": _scans(picture(800, 600), format_name="MPO"),
        "APNG of 1,500 pictures": _animation("PNG", pictures=1500),
        "WebP of 1,500 pictures": _animation("WEBP", pictures=1500),
    }


def _allowed() -> dict[str, bytes]:
    image = picture()
    huge = Image.new("1", (5000, 5000))
    return {
        "PNG of 25 million pixels": encoded(huge, "PNG"),
        "JPEG of 25 million pixels": encoded(huge.convert("L"), "JPEG"),
        "scans of few pixels": _scans(Image.new("RGB", (8, 8))),
        "JPEG with 60 KB of EXIF": encoded(image, "JPEG", exif=b"Exif\0\0" + b"\xff" * 60_000),
        "EXIF that points at itself": encoded(image, "JPEG", exif=_circular_exif()),
        "JPEG with 5 MB of ICC": encoded(image, "JPEG", icc_profile=bytes(5 * 2**20)),
        "WebP with 5 MB of EXIF": encoded(image, "WEBP", exif=bytes(5 * 2**20)),
        "APNG that says 4 billion pictures": _with_chunk(
            encoded(image, "PNG"), b"acTL", struct.pack(">II", 2**32 - 1, 0)
        ),
    }


def _zeros(megabytes: int) -> bytes:
    return zlib.compress(bytes(megabytes * 2**20), 1)


def _png_of(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = png_chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")


def _bmp_of(width: int, height: int) -> bytes:
    plain = encoded(picture(), "BMP")
    return plain[:18] + struct.pack("<ii", width, height) + plain[26:]


def _jpeg_of(width: int, height: int) -> bytes:
    plain = encoded(picture(), "JPEG")
    place = plain.index(b"\xff\xc0") + 5
    return plain[:place] + struct.pack(">HH", height, width) + plain[place + 4 :]


def _with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    header, *others = png_chunks(png)
    return png[:8] + header + png_chunk(kind, data) + b"".join(others)


def _many_chunks(png: bytes) -> bytes:
    header, *others = png_chunks(png)
    return png[:8] + header + png_chunk(b"teSt", b"") * 400_000 + b"".join(others)


def _many_comments(jpeg: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xfe\0\2" * 1_500_000 + jpeg[2:]


def _scans(image: Image.Image, *, format_name: str = "JPEG") -> bytes:
    """The last scan again and again, up to what a request may hold."""
    more = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}
    options = more if format_name == "MPO" else {}
    content = encoded(image, format_name, progressive=True, **options)
    end = content.index(b"\xff\xd9", content.index(b"\xff\xda"))
    scan = content[content.rindex(b"\xff\xda", 0, end) : end]
    return content[:end] + scan * ((_BODY - len(content)) // len(scan)) + content[end:]


def _animation(format_name: str, *, pictures: int) -> bytes:
    frames = [Image.new("RGB", (2, 2), (number % 2 * 255, 0, 0)) for number in range(pictures)]
    options = {"save_all": True, "append_images": frames[1:], "duration": 1, "lossless": True}
    return encoded(frames[0], format_name, **options)


def _circular_exif() -> bytes:
    """An image file directory whose sub-directories all lie where it lies itself."""
    tags = [struct.pack("<HHII", tag, 4, 1, 8) for tag in (0x8769, 0x8825, 0xA005)]
    return (
        b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + bytes([8, 0, 0, 0])
    )
