"""Writing files so that a crash leaves the old content or the new, never half of it."""

import csv
import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from darkroom.base.errors import DarkroomError

_CHUNK_BYTES = 1 << 20
_BEGIN_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""https://owasp.org/www-community/attacks/CSV_Injection."""


def workspace() -> Path:
    """The one folder under which everything a run writes lies.

    `$DARKROOM_HOME` (run.py sets it to `.darkroom` of the checkout), else `.darkroom`
    of the working folder. Not created here.
    """
    return Path(os.environ.get("DARKROOM_HOME", ".darkroom")).expanduser().resolve()


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block succeeds.

    The block may create a file, a folder or a link there. When it raises, what it wrote is
    removed and `path` stays as it was. A folder replaces only a missing folder: when
    another process was faster, its result is kept.

    Args:
        durable: wait until the content is on the disk, so that a power cut leaves the earlier
            file or this one; False: only a killed process does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        temporary = scratch / path.name
        yield temporary
        if durable:
            _flush(temporary)
        if not (_is_folder(temporary) and _is_folder(path)):
            temporary.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, where the file system can; else copy it.

    Both names are one file: whoever writes has to replace it, not to change it in place.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copy2(source, target)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_text(text: str | None) -> str | None:
    """A text as a cell of a CSV: one that a spreadsheet would take for a formula gets a '.

    File and class names come from whoever made the images; `=HYPERLINK(…)` would be run where
    the table is opened. JSON and Parquet hold names as they are.
    """
    return f"'{text}" if text and text.startswith(_BEGIN_FORMULAS) else text


def spreadsheet_line(cells: Iterable[object]) -> str:
    """A line of a CSV that people may open in a spreadsheet: no cell of it is a formula."""
    return csv_line(csv_text(cell) if isinstance(cell, str) else cell for cell in cells)


def csv_line(cells: Iterable[object]) -> str:
    """A line of a CSV, with the cells quoted that need it.

    Before Python 3.13 its own writer leaves a carriage return as it is, unless lines end in one;
    there readers break the row in two.
    """
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()[:-2] + "\n"


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn the errors of a full disk into one that says where and what to do."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise DarkroomError(full_disk_message(folder)) from error


def is_full_disk(error: OSError) -> bool:
    """Whether a disk, or what a user may have of it, is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def full_disk_message(path: Path) -> str:
    """Which file system is full, and what to do."""
    mount = Path(os.path.realpath(path))
    while not os.path.ismount(mount) and mount != mount.parent:
        mount = mount.parent
    return (
        f"the disk of {str(path)!r} is full (the file system of {str(mount)!r}). Nothing "
        "half-written is left; make room (`python run.py prune` says what it would free), or set "
        "DARKROOM_HOME to a folder on another disk, and run the same command again."
    )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _flush(path: Path) -> None:
    """Force a file's content to the disk; a full disk raises here, before the rename."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())
