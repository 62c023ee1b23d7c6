"""The files that a source holds, by path and size, before any of them is read."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from darkroom.errors import UserError
from darkroom.sources.entry_paths import is_hidden_name

HIDDEN = "hidden or system file"
BAD_NAME = "file name is not valid text"
OUTSIDE_LINK = "link out of the folder, or to a folder"
NOT_A_FILE = "not a regular file"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a source."""

    path: str
    """Relative to the source's root, with forward slashes."""
    size: int
    """Bytes."""
    mtime_ns: int = 0
    """Time of the last change; 0 where the source knows none."""


@dataclass(frozen=True)
class Listing:
    """The files of a source, sorted by path, and how many were passed over, by reason."""

    files: tuple[FileEntry, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    def below(self, folder: str) -> "Listing":
        """The files in a folder, their paths relative to it; `left_out` stays as it is."""
        start = len(folder) + 1
        inside = (file for file in self.files if file.path.startswith(f"{folder}/"))
        return Listing(
            tuple(FileEntry(file.path[start:], file.size, file.mtime_ns) for file in inside),
            self.left_out,
        )


def make_listing(
    files: Iterable[FileEntry], *, left_out: Counter[str], maximum_files: int, source: str
) -> Listing:
    """Sort and count what a source holds.

    Raises:
        UserError: more than `maximum_files`.
    """
    kept: list[FileEntry] = []
    for file in files:
        kept.append(file)
        if len(kept) > maximum_files:
            raise UserError(too_many_files(source, maximum_files=maximum_files))
    return Listing(tuple(sorted(kept, key=lambda file: file.path)), left_out)


def too_many_files(source: str, *, maximum_files: int) -> str:
    """The message for a source with more files than the configuration allows."""
    return (
        f"{source!r} holds more than {maximum_files:,} files. If that is meant, "
        "raise data.maximum_files; else name the folder of the images."
    )


def list_folder(root: Path, *, maximum_files: int) -> Listing:
    """Walk a folder. Hidden files and links out of it are counted, not listed.

    Raises:
        UserError: the folder is missing, cannot be read, or holds too many files.
    """
    left_out: Counter[str] = Counter()
    top = _readable_folder(root)
    try:
        return make_listing(
            _walk(top, top=top, prefix="", left_out=left_out),
            left_out=left_out,
            maximum_files=maximum_files,
            source=str(root),
        )
    except PermissionError as error:
        raise UserError(
            f"{error.filename!r} may not be read. Change its permissions or name another folder."
        ) from error


def _readable_folder(root: Path) -> str:
    if not root.exists():
        raise UserError(f"data folder {str(root)!r} does not exist. Check the path.")
    if not root.is_dir():
        raise UserError(f"{str(root)!r} is not a folder.")
    return str(root.resolve())


def _walk(folder: str, *, top: str, prefix: str, left_out: Counter[str]) -> Iterator[FileEntry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            reason = _reason_to_leave_out(entry, top=top)
            if reason:
                left_out[reason] += _files_in(entry)
            elif entry.is_dir():
                yield from _walk(entry.path, top=top, prefix=f"{path}/", left_out=left_out)
            else:
                status = entry.stat()
                yield FileEntry(path, status.st_size, status.st_mtime_ns)


def _reason_to_leave_out(entry: os.DirEntry[str], *, top: str) -> str | None:
    if is_hidden_name(entry.name):
        return HIDDEN
    if not _is_text(entry.name):
        return BAD_NAME
    if entry.is_symlink() and not _leads_to_a_file_inside(entry.path, top=top):
        return OUTSIDE_LINK
    if not (entry.is_dir() or entry.is_file()):
        return NOT_A_FILE
    return None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leads_to_a_file_inside(link: str, *, top: str) -> bool:
    target = os.path.realpath(link)
    return target.startswith(os.path.join(top, "")) and os.path.isfile(target)


def _files_in(entry: os.DirEntry[str]) -> int:
    """How many files an entry stands for: itself, or all that lie below a folder."""
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(files) for _, _, files in os.walk(entry.path))
