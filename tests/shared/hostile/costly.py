"""Images that are small to send and dear to decode, within the limits of a request."""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from hostile.images import encoded, picture, png_chunk, png_chunks

_SIDE = 5000
"""25 million pixels: as many as are accepted."""
_BODY = 6 * 2**20


def costly_images() -> dict[str, Callable[[], bytes]]:
    """What makes each, by its kind."""
    return {
        "WebP, lossless, RGBA": lambda: _flat("RGBA", "WEBP", lossless=True),
        "WebP, animated": _animated_webp,
        "PNG, RGBA": lambda: _flat("RGBA", "PNG"),
        "PNG, palette with transparency": lambda: _flat("P", "PNG", transparency=0),
        "PNG, 16 bits": lambda: _flat("I;16", "PNG"),
        "PNG, 4 profiles of 1 MiB": lambda: _with_chunks(b"iCCP", _profile(), count=4),
        "PNG, 5,900 profiles of 1 MiB": lambda: _with_chunks(b"iCCP", _profile(), count=5900),
        "PNG, 900 packed texts": lambda: _with_chunks(b"zTXt", _text(60_000), count=900),
        "PNG, 19,000 texts": lambda: _with_chunks(b"tEXt", b"a\0b", count=19_000),
        "PNG, 900 international texts": lambda: _with_chunks(
            b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(60_000)), count=900
        ),
        "PNG, EXIF of 60,000 tags": lambda: _with_chunks(b"eXIf", _exif(60_000), count=1),
        "PNG, 19,000 IDAT": _many_idat,
        "JPEG, 900 segments of EXIF": lambda: _with_segments(count=900),
        "JPEG, 19,900 segments of EXIF": lambda: _with_segments(count=19_900),
        "JPEG, progressive": lambda: _flat("RGB", "JPEG", progressive=True, subsampling=0),
        "JPEG, CMYK": lambda: _flat("CMYK", "JPEG"),
        "JPEG, scans": lambda: _scans(1000),
        "MPO, scans": lambda: _scans(1000, format_name="MPO"),
        "BMP, RLE8": lambda: bmp_rle(b"\1\xff\0\0" * _SIDE, bits=8, compression=1),
        "BMP, RLE8, pairs of nothing": lambda: bmp_rle(bytes(_BODY - 2000), bits=8, compression=1),
        "BMP, RLE4": lambda: bmp_rle(
            (b"\xff\x11" * (_SIDE // 255) + b"\0\0") * _SIDE, bits=4, compression=2
        ),
        "BMP, 1 bit": lambda: _flat("1", "BMP"),
        "GIF": lambda: _flat("P", "GIF"),
        "TIFF, LZW": lambda: _flat("RGB", "TIFF", compression="tiff_lzw"),
        "TIFF, deflate": lambda: _flat("RGB", "TIFF", compression="tiff_adobe_deflate"),
        "TIFF, strips of a row": lambda: _flat(
            "L", "TIFF", compression="packbits", tiffinfo={278: 1}
        ),
        "ICO": lambda: encoded(Image.new("RGBA", (256, 256)), "ICO"),
        "JPEG 2000": lambda: encoded(Image.new("RGB", (2000, 2000)), "JPEG2000"),
        "PPM": lambda: b"P6 1400 1400 255\n" + bytes(1400 * 1400 * 3),
        "AVIF": lambda: encoded(Image.new("RGB", (2500, 2500)), "AVIF", speed=10),
    }


def bmp_rle(data: bytes, *, bits: int, compression: int) -> bytes:
    """A BMP of 5000×5000 pixels whose run lengths are these."""
    colours = 1 << bits
    start = 54 + 4 * colours
    head = struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
    information = (40, _SIDE, _SIDE, 1, bits, compression, len(data), 0, 0, colours, 0)
    return head + struct.pack("<IiiHHIIiiII", *information) + bytes(4 * colours) + data + b"\0\1"


def _flat(mode: str, format_name: str, **options: object) -> bytes:
    return encoded(Image.new(mode, (_SIDE, _SIDE)), format_name, **options)


def _animated_webp() -> bytes:
    more = [Image.new("RGBA", (_SIDE, _SIDE), (n, 0, 0, 9)) for n in range(3)]
    return encoded(more[0], "WEBP", save_all=True, append_images=more[1:], lossless=True)


def _profile() -> bytes:
    return b"a\0\0" + zlib.compress(bytes(2**20), 9)


def _text(size: int) -> bytes:
    return b"a\0\0" + zlib.compress(bytes(size), 9)


def _exif(tags: int) -> bytes:
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    others = b"".join(struct.pack("<HHII", 0x9000 + n % 5000, 4, 1, n) for n in range(tags))
    return b"II*\0" + struct.pack("<IH", 8, tags + 1) + orientation + others + bytes(4)


def _with_chunks(kind: bytes, data: bytes, *, count: int) -> bytes:
    png = encoded(picture(), "PNG")
    header, *others = png_chunks(png)
    return png[:8] + header + png_chunk(kind, data) * count + b"".join(others)


def _many_idat() -> bytes:
    pixels = zlib.compress(bytes((1 + 3 * 2500) * 2500), 0)
    size = len(pixels) // 19_000 + 1
    parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    header = struct.pack(">IIBBBBB", 2500, 2500, 8, 2, 0, 0, 0)
    chunks = b"".join(png_chunk(b"IDAT", part) for part in parts)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + chunks + png_chunk(b"IEND", b"")
    return png if len(png) <= _BODY else png[:_BODY]


def _with_segments(*, count: int) -> bytes:
    jpeg = encoded(picture(), "JPEG")
    body = b"Exif\0\0" + _exif(20)
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return jpeg[:2] + segment * count + jpeg[2:]


def _scans(count: int, *, format_name: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (630, 630))
    more = {"save_all": True, "append_images": [image]} if format_name == "MPO" else {}
    image.save(buffer, format_name, progressive=True, **more)
    content = buffer.getvalue()
    end = content.index(b"\xff\xd9", content.index(b"\xff\xda"))
    scan = content[content.rindex(b"\xff\xda", 0, end) : end]
    return content[:end] + scan * count + content[end:]
