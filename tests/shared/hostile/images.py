"""Files that are damaged, or something else than they seem; made from a seed."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

SEED = 20261126


@dataclass(frozen=True)
class ImageCase:
    """A body that claims to be an image."""

    kind: str
    name: str
    content: bytes
    is_refused: bool = False
    """Whether it must be; else a right answer is as good."""


def image_cases() -> list[ImageCase]:
    """All of them, the same at every call."""
    from hostile.bombs import bombs

    return [*_mutations(), *_confusions(), *bombs()]


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    """The file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def picture(width: int = 120, height: int = 90) -> Image.Image:
    """Noise that is smooth enough to be compressed."""
    pixels = np.random.default_rng(SEED).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """With its length and checksum."""
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_chunks(content: bytes) -> list[bytes]:
    """A PNG's chunks, each whole."""
    chunks, position = [], 8
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        chunks.append(content[position : position + length + 12])
        position += length + 12
    return chunks


def _originals() -> Iterator[tuple[str, bytes]]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    image = picture()
    yield "jpeg", encoded(image, "JPEG", exif=exif)
    yield "progressive", encoded(image, "JPEG", progressive=True)
    yield "mpo", encoded(image, "MPO", save_all=True, append_images=[image])
    yield "png", encoded(image, "PNG", exif=exif)
    yield "palette", encoded(image.quantize(16), "PNG", transparency=3)
    yield "apng", encoded(image, "PNG", save_all=True, append_images=[image.rotate(9)])
    yield "webp", encoded(image, "WEBP", exif=exif)
    yield "webp animation", encoded(image, "WEBP", save_all=True, append_images=[image.rotate(9)])
    yield "bmp", encoded(image, "BMP")


def _mutations() -> Iterator[ImageCase]:
    dice = random.Random(SEED)
    for name, content in _originals():
        for how, mutate in _WAYS.items():
            for number in range(2):
                yield ImageCase(how, f"{name} {number}", mutate(content, dice))


def _flip(content: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(dice.randint(1, 20)):
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def _truncate(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(1, len(content))]


def _inflate_lengths(content: bytes, dice: random.Random) -> bytes:
    """Something in the head, where lengths and sizes are, becomes the largest number."""
    position, width = dice.randrange(2, min(200, len(content) - 8)), dice.choice((1, 2, 4))
    return content[:position] + b"\xff" * width + content[position + width :]


def _zero_lengths(content: bytes, dice: random.Random) -> bytes:
    position = dice.randrange(2, min(200, len(content) - 8))
    return content[:position] + bytes(4) + content[position + 4 :]


def _swap_parts(content: bytes, dice: random.Random) -> bytes:
    if content.startswith(b"\x89PNG"):
        chunks = png_chunks(content)
        dice.shuffle(chunks)
        return content[:8] + b"".join(chunks)
    first, second = sorted(dice.sample(range(12, len(content)), 2))
    return content[:12] + content[first:second] + content[12:first] + content[second:]


def _edit_markers(content: bytes, dice: random.Random) -> bytes:
    """Each kind of JPEG marker, or the name of a chunk, becomes another one."""
    if not content.startswith(b"\xff\xd8"):
        position = dice.randrange(8, 40)
        return content[:position] + dice.randbytes(4) + content[position + 4 :]
    places = [i for i in range(2, len(content) - 1) if content[i] == 255 and content[i + 1] > 191]
    position = dice.choice(places) + 1
    return content[:position] + bytes([dice.randrange(192, 255)]) + content[position + 1 :]


def _repeat_part(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content) // 2)
    end = dice.randrange(start, len(content))
    return content[:end] + content[start:end] * 50 + content[end:]


_WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bits flipped": _flip,
    "truncated": _truncate,
    "lengths inflated": _inflate_lengths,
    "lengths zeroed": _zero_lengths,
    "parts swapped": _swap_parts,
    "markers edited": _edit_markers,
    "parts repeated": _repeat_part,
}


def _confusions() -> Iterator[ImageCase]:
    image, archive = picture(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(zipfile.ZipInfo("image.png"), encoded(image, "PNG"))
    others = {
        "GIF": encoded(image, "GIF"),
        "TIFF": encoded(image, "TIFF"),
        "ICO": encoded(image, "ICO"),
        "PPM": encoded(image, "PPM"),
        "JPEG 2000": encoded(image, "JPEG2000"),
        "EPS": encoded(image, "EPS"),
        "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
        "ZIP": archive.getvalue(),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "XML entities": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
        "ELF": b"\x7fELF" + bytes(500),
        "pickle": b"cos\nsystem\n(S'false'\ntR.",
        "zeros": bytes(100_000),
        "PNG in name only": b"\x89PNG\r\n\x1a\n" + archive.getvalue(),
        "GIF, then JPEG": b"GIF89a" + encoded(image, "JPEG"),
    }
    for name, content in others.items():
        yield ImageCase("another format", name, content, is_refused=True)
    yield ImageCase("polyglot", "JPEG, then ZIP", encoded(image, "JPEG") + archive.getvalue())
    yield ImageCase("polyglot", "PNG, then HTML", encoded(image, "PNG") + others["HTML"])
