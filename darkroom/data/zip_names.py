"""Names of a zip's entries that are not marked as UTF-8.

The format knows two encodings, UTF-8 and cp437, but packers write whatever their system uses.
Read as cp437, Japanese names fall apart at the backslashes that their second bytes are, and
three classes became one. So a name is read as what it can only be, or not at all.
"""

import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
"""Extra field that holds the name in UTF-8, and the CRC-32 of the one that it stands for."""

_CANDIDATES = {
    "cp437": "LATIN",
    "cp850": "LATIN",
    "cp1252": "LATIN",
    "cp1250": "LATIN",
    "cp866": "CYRILLIC",
    "cp1251": "CYRILLIC",
    "cp932": "CJK HIRAGANA KATAKANA KATAKANA-HIRAGANA HALFWIDTH FULLWIDTH IDEOGRAPHIC",
    "gbk": "CJK",
    "big5": "CJK",
    "cp949": "HANGUL CJK",
}
"""Encoding to the scripts of its words, as Unicode's names of characters begin."""

_WIDE_MARKS = frozenset(("Pc", "Pd", "Pe", "Po", "Ps", "Nd", "Zs"))
"""Brackets, dots and digits, of which East Asian encodings have their own."""

_SHOWN = 3
_SETTING = "data.zip_encoding (predict: --zip-encoding)"


@dataclass(frozen=True)
class ZipNames:
    """The names of a zip's entries, in order."""

    names: tuple[str, ...]
    problem: str = ""
    """Why they cannot be known; empty: they are."""


def read_names(infos: Sequence[zipfile.ZipInfo], *, encoding: str = "") -> ZipNames:
    """Decode the names of entries.

    Args:
        encoding: of the names that are not marked as UTF-8; empty: find out, where that is
            possible without guessing.
    """
    names = [_told(info) for info in infos]
    raw = {_raw(info) for info, name in zip(infos, names, strict=True) if name is None}
    decoded, problem = _decode_all(raw, encoding=encoding) if raw else ({}, "")
    if problem:
        return ZipNames((), problem=problem)
    return ZipNames(
        tuple(
            decoded[_raw(info)] if name is None else name
            for info, name in zip(infos, names, strict=True)
        )
    )


def _told(info: zipfile.ZipInfo) -> str | None:
    """A name that is plain or whose encoding is known; None: it has to be found out."""
    if info.flag_bits & _UTF8_FLAG or info.orig_filename.isascii():
        return info.orig_filename
    return _unicode_path(info)


def _raw(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("cp437")  # as zipfile has decoded it


def _unicode_path(info: zipfile.ZipInfo) -> str | None:
    extra = info.extra
    while len(extra) >= 4:
        kind, size = (int.from_bytes(extra[at : at + 2], "little") for at in (0, 2))
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        crc = int.from_bytes(field[1:5], "little")
        if kind == _UNICODE_PATH and field[:1] == b"\x01" and crc == zlib.crc32(_raw(info)):
            return _decoded(field[5:], encoding="utf-8")
    return None


def _decode_all(names: set[bytes], *, encoding: str) -> tuple[dict[bytes, str], str]:
    """Each name's reading, or why there is none."""
    if encoding:
        readings = {raw: _decoded(raw, encoding=encoding) for raw in names}
        wrong = sorted(raw for raw, name in readings.items() if name is None)
        problem = f"its names are not {encoding!r}, as {_SETTING} says: {wrong[:_SHOWN]!r}"
        known = {raw: name for raw, name in readings.items() if name is not None}
        return known, problem if wrong else ""
    readings = {raw: _decoded(raw, encoding="utf-8") for raw in names}
    if None not in readings.values():  # by its structure it is hardly anything else
        return {raw: name for raw, name in readings.items() if name is not None}, ""
    found = _plausible(names)
    texts = {tuple(reading.items()) for reading in found.values()}
    if len(texts) == 1:
        return next(iter(found.values())), ""
    return {}, _ambiguous(names, found=found)


def _plausible(names: set[bytes]) -> dict[str, dict[bytes, str]]:
    """Encodings in which all names are words of one script."""
    found = {}
    ordered = sorted(names)
    for encoding, scripts in _CANDIDATES.items():
        reading = {raw: _decoded(raw, encoding=encoding) for raw in ordered}
        known = {raw: name for raw, name in reading.items() if name is not None}
        if len(known) == len(reading) and all(
            _is_plausible(name, scripts=scripts.split()) for name in known.values()
        ):
            found[encoding] = known
    return found


def _decoded(raw: bytes, *, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _is_plausible(name: str, *, scripts: Sequence[str]) -> bool:
    """Whether what is not ASCII are letters of the scripts, in words without other letters."""
    for is_letter, characters in groupby(name, key=_is_letter):
        word = "".join(characters)
        if is_letter and not word.isascii():
            own = [unicodedata.name(character, "").split(" ")[0] in scripts for character in word]
            if not all(own):
                return False
        elif not is_letter and not word.isascii():
            wide = "CJK" in scripts and {unicodedata.category(c) for c in word} <= _WIDE_MARKS
            if not wide:
                return False
    return True


def _is_letter(character: str) -> bool:
    return unicodedata.category(character) in ("Lu", "Ll", "Lo", "Lm") and character not in "ªºⁿ"


def _ambiguous(names: set[bytes], *, found: dict[str, dict[bytes, str]]) -> str:
    first = min(names)
    readings = "; ".join(
        f"as {encoding}: {reading[first]!r}" for encoding, reading in found.items()
    )
    return (
        f"its names are not marked as UTF-8, and may be of several encodings: {first!r} reads "
        f"{readings or 'as no text in any that is known'}. Set {_SETTING} to the right one "
        "(Japanese Windows: cp932, Chinese: gbk, western: cp1252), or pack the files again with "
        "names in UTF-8"
    )
