"""What a job has left in its /opt/ml, read without being led outside by it.

A job may put a link, a pipe or a device where a file or folder is expected, while we look too.
So nothing here is opened by a path that a job could have changed: each folder is opened within
the one above it, links are never followed, and only regular files are read. The folder that is
/opt/ml itself is a mount point, which a job cannot replace.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Entry:
    """Something below a folder of a job's."""

    path: str
    """Relative to the folder."""
    status: os.stat_result
    """Of itself: links are not followed."""
    link: str = ""
    """Where it points, if it is a link."""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)


def entries(ml: Path, folder: str) -> list[Entry]:
    """All that lies below a folder of /opt/ml, sorted by path; nothing where there is none."""
    try:
        descriptor = _open_folder(ml, folder)
    except OSError:
        return []
    try:
        found = list(_below(descriptor, prefix=""))
    finally:
        os.close(descriptor)
    return sorted(found, key=lambda entry: entry.path.split("/"))


@contextmanager
def opened(ml: Path, path: str) -> Iterator[BinaryIO]:
    """A regular file of /opt/ml, to read.

    Raises:
        OSError: there is none, it is something else, or a link is on the way.
    """
    parent, name = os.path.split(path)
    folder = _open_folder(ml, parent)
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path!r} is no regular file")
        yield file


def read_text(ml: Path, path: str, *, characters: int) -> str:
    """The beginning of a text that a job may have written; empty where there is none."""
    try:
        with opened(ml, path) as file:
            return file.read(4 * characters).decode("utf-8", errors="replace")[:characters]
    except OSError:
        return ""


def remove_but(ml: Path, *, keep: tuple[str, ...]) -> None:
    """Delete all of /opt/ml but these folders, and what lies in them."""
    kept = [PurePosixPath(name) for name in keep]
    descriptor = os.open(ml, _FOLDER)
    try:
        _remove(descriptor, place=PurePosixPath(), kept=kept)
    finally:
        os.close(descriptor)


def _open_folder(ml: Path, path: str) -> int:
    here = os.open(ml, _FOLDER)
    for name in PurePosixPath(path).parts:
        try:
            below = os.open(name, _FOLDER, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def _below(folder: int, *, prefix: str) -> Iterator[Entry]:
    for name in os.listdir(folder):
        path = f"{prefix}{name}"
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            is_link = stat.S_ISLNK(status.st_mode)
            yield Entry(path, status, os.readlink(name, dir_fd=folder) if is_link else "")
            if not stat.S_ISDIR(status.st_mode):
                continue
            inner = os.open(name, _FOLDER, dir_fd=folder)
        except OSError:
            continue  # it is gone, has become something else, or may not be read
        try:
            yield from _below(inner, prefix=f"{path}/")
        finally:
            os.close(inner)


def _remove(folder: int, *, place: PurePosixPath, kept: list[PurePosixPath]) -> None:
    """Empty an open folder; a folder of which something stays, stays."""
    for name in os.listdir(folder):
        path = place / name
        if path in kept:
            continue
        try:
            inner = os.open(name, _FOLDER, dir_fd=folder)
        except OSError:  # a file, or a link; or it cannot be opened
            _unlink(name, folder=folder)
            continue
        try:
            _remove(inner, place=path, kept=kept)
        finally:
            os.close(inner)
        if not any(each.is_relative_to(path) for each in kept):
            _rmdir(name, folder=folder)


def _unlink(name: str, *, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        return


def _rmdir(name: str, *, folder: int) -> None:
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError:
        return
