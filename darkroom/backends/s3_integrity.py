"""Whether a file is what S3 holds: sizes and the checksums that an answer carries.

Plain MD5 and SHA-1 serve here against damage in transit, as S3 uses them, not against forgery.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from darkroom.errors import DarkroomError

_CHUNK_BYTES = 1 << 20
_MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')


class DamagedTransferError(DarkroomError):
    """A file differs from what S3 says that it sent; another attempt may help."""


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


_CHECKSUMS: dict[str, Callable[[], _Digest]] = {
    "ChecksumSHA256": hashlib.sha256,
    "ChecksumSHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "ChecksumCRC32": _Crc32,
}
"""Header of an answer to what computes it; the others need libraries that are not here."""


def md5_of_etag(answer: Mapping[str, object]) -> bytes | None:
    """The MD5 that an ETag is, or None where it is something else.

    It is none for objects uploaded in parts and for those encrypted with KMS or customer
    keys (Amazon S3 API Reference, Object: ETag).
    """
    encryption = str(answer.get("ServerSideEncryption", "AES256"))
    found = _MD5_ETAG.fullmatch(str(answer.get("ETag", "")))
    if found is None or encryption != "AES256" or "SSECustomerAlgorithm" in answer:
        return None
    return bytes.fromhex(found.group(1))


def check_file(path: Path, *, size: int, answer: Mapping[str, object]) -> None:
    """Compare a fetched file with its size and with the checksums in S3's answer.

    Raises:
        DamagedTransferError: it differs.
    """
    if path.stat().st_size != size:
        raise DamagedTransferError(f"{path.stat().st_size:,} of {size:,} bytes arrived")
    expected = _expected(answer)
    digests = {name: _new(name) for name in expected}
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            for digest in digests.values():
                digest.update(chunk)
    for name, value in expected.items():
        if digests[name].digest() != value:
            raise DamagedTransferError(f"{name.removeprefix('Checksum')} differs")


def _expected(answer: Mapping[str, object]) -> dict[str, bytes]:
    """The checksums of the whole object; those over its parts say nothing about the file."""
    sent_in_parts = "-" in str(answer.get("ETag", ""))
    if sent_in_parts and answer.get("ChecksumType") != "FULL_OBJECT":
        return {}
    found = {
        name: base64.b64decode(value)
        for name in _CHECKSUMS
        if isinstance(value := answer.get(name), str)
    }
    md5 = md5_of_etag(answer)
    return found | ({"MD5": md5} if md5 else {})


def _new(name: str) -> _Digest:
    return _CHECKSUMS[name]() if name in _CHECKSUMS else hashlib.md5(usedforsecurity=False)
