"""Taking a few known files out of a tar archive that anybody may have made.

Nothing but those files is written, and nothing that the archive says of them is believed:
neither owner, mode and time, nor that a link is a file.
"""

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from darkroom.errors import DarkroomError, UserError
from darkroom.sources.archive_meter import HARMLESS_BYTES, LARGEST_RATIO
from darkroom.sources.archives import ShortNamed

MAXIMUM_BYTES = 8 * 2**30
"""Of all the files together, unpacked."""

_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_DAMAGE = (
    tarfile.TarError,
    EOFError,
    OSError,
    zlib.error,
    ValueError,  # numbers in headers that are none
    OverflowError,
    RecursionError,  # headers that announce headers that announce headers …
)


def extract(archive: Path, *, folder: Path, names: Collection[str]) -> None:
    """Write the named files, all of which have to be there, into `folder`.

    Raises:
        UserError: no tar or tar.gz; or one with other members, links, devices, the same name
            twice, or more bytes than `MAXIMUM_BYTES` or than any weights could shrink to.
        DarkroomError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left, budget = set(names), _budget(archive)
    with _damage_explained(archive), _opened(archive) as tar:
        for member in tar:
            if member.isdir() and member.name == ".":
                continue  # `tar -C folder .` writes it
            name, budget = member.name.removeprefix("./"), budget - member.size
            problem = _problem(member, name=name, names=names, left=left, budget=budget)
            if problem:
                raise UserError(f"{problem} in the bundle {str(archive)!r}")
            _write(tar, member=member, path=folder / name)
            left.remove(name)
    if left:
        raise UserError(f"the bundle {str(archive)!r} holds no {', no '.join(sorted(left))}")


def _budget(archive: Path) -> int:
    """Bytes that it may unpack to: zeros would shrink to a thousandth, weights hardly do."""
    return min(MAXIMUM_BYTES, max(HARMLESS_BYTES, LARGEST_RATIO * archive.stat().st_size))


def _problem(
    member: tarfile.TarInfo, *, name: str, names: Collection[str], left: set[str], budget: int
) -> str | None:
    shown = f"{member.name!r:.100}"
    if name not in names:
        return f"unexpected {shown} (expected: {', '.join(names)})"
    if not member.isreg() or member.issparse():
        return f"unexpected kind of file, such as a link or a device: {shown}"
    if name not in left:
        return f"unexpected second {shown}"
    if member.size < 0:
        return f"negative size of {shown}"
    if budget < 0:
        return f"{shown} is too large: all of it exceeds what weights can shrink to, or 8 GiB,"
    return None


def _write(tar: tarfile.TarFile, *, member: tarfile.TarInfo, path: Path) -> None:
    source = cast(IO[bytes], tar.extractfile(member))  # None only for what is no regular file
    with path.open("xb") as target:
        shutil.copyfileobj(source, target)
    if path.stat().st_size != member.size:
        raise EOFError(f"{member.name!r} ends too early")


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    with archive.open("rb") as packed:
        start = packed.read(len(_ZIP))
        packed.seek(0)
        if start == _ZIP:
            raise tarfile.ReadError("it is a zip, not a tar.gz")
        content = gzip.GzipFile(fileobj=packed) if start.startswith(_GZIP) else packed
        with tarfile.open(fileobj=content, mode="r|", tarinfo=ShortNamed) as tar:
            yield tar


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the content's
            raise DarkroomError(f"{str(archive)!r} cannot be unpacked: {error}") from error
        reason = str(error) or "it ends too early"
        raise UserError(f"{str(archive)!r} is no readable model bundle: {reason}") from error
