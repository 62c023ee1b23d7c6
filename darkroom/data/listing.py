"""The files that a source holds, by path and size, before any of them is read."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from darkroom.base.errors import UserError

# --- entry paths ---
# Paths inside a source: which may be written, and which are of no interest.

_SYSTEM_NAMES = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "icon\r"}
    | {"@eadir", "#recycle", "lost+found", "system volume information"}
)
"""Left by macOS, Windows, Linux and Synology, whose @eaDir holds thumbnails of each image."""
_MAX_COMPONENT_BYTES = 255
"""NAME_MAX of Linux and macOS file systems."""


IMAGE_START_BYTES = 12
"""Of a file, that say whether it may be an image."""
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"BM")
_BOXED = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")


def begins_like_an_image(start: bytes) -> bool:
    """Whether content may be an image of a format that is read, by its first bytes."""
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    is_boxed = start[4:8] == b"ftyp" and start[8:12] in _BOXED
    return is_webp or is_boxed or start.startswith(_IMAGE_STARTS)


def unsafe_reason(name: str) -> str | None:
    """Why a path from an archive or a bucket must not be written, or None.

    Backslashes count as separators, as they do for the tools that write them.
    """
    if not name:
        return "has no name"
    parts = name.replace("\\", "/").split("/")
    if ".." in parts:
        return "leads out of the folder"
    if parts[0] == "" or (":" in name and PureWindowsPath(name).drive):
        return "is an absolute path"
    if "\0" in name or not _is_text(name):
        return "is no usable file name"
    if len(name) * 4 > _MAX_COMPONENT_BYTES and any(
        len(part.encode()) > _MAX_COMPONENT_BYTES for part in parts
    ):
        return f"has a part of more than {_MAX_COMPONENT_BYTES} bytes"
    return None


def _is_text(name: str) -> bool:
    """Whether a name has no bytes that were none in its encoding."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def inner_path(name: str) -> str:
    """A safe path in canonical form: forward slashes, no empty or `.` component."""
    path = name.replace("\\", "/")
    # Most names are in this form already, and there may be millions.
    if "//" in path or "./" in path or path.endswith(("/", ".")):
        return str(PurePosixPath(path))
    return path


def is_hidden(path: str) -> bool:
    """Whether a path is hidden, or is what an operating system leaves behind."""
    return any(is_hidden_name(part) for part in path.split("/"))


def is_hidden_name(name: str) -> bool:
    """`is_hidden` of one component."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


# --- listing ---

HIDDEN = "hidden or system file"
BAD_NAME = "file name is not valid text"
BROKEN_LINK = "link to nothing"
LINK_CYCLE = "link to a folder that holds it, or links in links"
OUTSIDE_LINK = "link out of the folder, or to a folder"
NOT_A_FILE = "not a regular file"

_EXAMPLES = 5
_MAX_LINKS_IN_LINKS = 4
"""Folders that link to each other hold each other in every order: some end is needed."""


class LeftOut(Counter[str]):
    """How many files were passed over, by reason, with the first of each."""

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        super().__init__(counts or {})
        self.examples: dict[str, list[str]] = {}
        if isinstance(counts, LeftOut):
            self.examples = {reason: [*paths] for reason, paths in counts.examples.items()}

    def add(self, reason: str, path: str, *, count: int = 1) -> None:
        """Count a file, or a folder of `count` files."""
        self[reason] += count
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(path)

    def add_all(self, others: Mapping[str, int]) -> None:
        """Count what was passed over elsewhere, such as while unpacking."""
        self.update(others)
        if isinstance(others, LeftOut):
            for reason, paths in others.examples.items():
                known = self.examples.setdefault(reason, [])
                known += paths[: _EXAMPLES - len(known)]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a source."""

    path: str
    """Relative to the source's root, with forward slashes."""
    size: int
    """Bytes."""
    is_image: bool = False
    """Whether it is one by its content, looked at where the name has no extension."""


@dataclass(frozen=True)
class Listing:
    """The files of a source, sorted by path, and how many were passed over, by reason."""

    files: tuple[FileEntry, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    empty_folders: tuple[str, ...] = ()
    """Folders without a file, where the source knows of such."""


def make_listing(
    files: Iterable[FileEntry], *, left_out: Counter[str], maximum_files: int, source: str
) -> Listing:
    """A listing of what a source holds: sorted by path, with what was passed over.

    Args:
        files: in any order; read no further than to the first one too many.
        left_out: files that were passed over, by reason; counted while `files` is read.
        source: its name in the message of the error.

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


def list_folder(root: Path, *, maximum_files: int, follow_links: bool = True) -> Listing:
    """Walk a folder. Hidden files, broken links and cycles are counted, not listed.

    Args:
        follow_links: read what links lead to, wherever that lies: right for a folder that a
            person made. False: links out of the folder, and to folders, are passed over.

    Raises:
        UserError: the folder is missing, cannot be read, or holds too many files.
    """
    top = _readable_folder(root)
    walk = _Walk(top, follow_links=follow_links)
    try:
        listing = make_listing(
            walk.files(),
            left_out=walk.left_out,
            maximum_files=maximum_files,
            source=str(root),
        )
    except PermissionError as error:
        raise UserError(
            f"{error.filename!r} may not be read. Change its permissions or name another folder."
        ) from error
    return replace(listing, empty_folders=tuple(sorted(walk.empty_folders)))


def _readable_folder(root: Path) -> str:
    if not root.exists():
        raise UserError(f"data folder {str(root)!r} does not exist. Check the path.")
    if not root.is_dir():
        raise UserError(f"{str(root)!r} is not a folder.")
    return str(root.resolve())


def _is_image(entry: os.DirEntry[str]) -> bool:
    if "." in entry.name:
        return False
    try:
        with open(entry.path, "rb") as file:
            return begins_like_an_image(file.read(IMAGE_START_BYTES))
    except OSError:
        return False  # whoever needs its content will say why there is none


class _Walk:
    """A walk through a folder, and what it passed over."""

    def __init__(self, top: str, *, follow_links: bool) -> None:
        self._top, self._follow_links = top, follow_links
        self.left_out = LeftOut()
        self.empty_folders: list[str] = []

    def files(self) -> Iterator[FileEntry]:
        """The files of the folder, and of all below."""
        return self._walk(self._top, prefix="", parents=(os.path.realpath(self._top),), links=0)

    def _walk(
        self, folder: str, *, prefix: str, parents: tuple[str, ...], links: int
    ) -> Iterator[FileEntry]:
        with os.scandir(folder) as found:
            entries = list(found)
        if prefix and all(is_hidden_name(entry.name) for entry in entries):
            self.empty_folders.append(prefix[:-1])
        for entry in entries:
            path = prefix + entry.name
            if reason := self._reason_to_leave_out(entry):
                self.left_out.add(reason, _shown(path), count=_files_in(entry))
            elif not entry.is_dir():
                yield FileEntry(path, entry.stat().st_size, is_image=_is_image(entry))
            else:
                real = os.path.realpath(entry.path) if entry.is_symlink() else ""
                deeper = links + bool(real)
                if real in parents or deeper > _MAX_LINKS_IN_LINKS:
                    self.left_out.add(LINK_CYCLE, path)
                    continue
                yield from self._walk(
                    entry.path,
                    prefix=f"{path}/",
                    parents=(*parents, real or os.path.join(parents[-1], entry.name)),
                    links=deeper,
                )

    def _reason_to_leave_out(self, entry: os.DirEntry[str]) -> str | None:
        if is_hidden_name(entry.name):
            return HIDDEN
        if not _is_text(entry.name):
            return BAD_NAME
        if entry.is_symlink():
            if not self._follow_links and not _leads_to_a_file_inside(entry.path, top=self._top):
                return OUTSIDE_LINK
            if not os.path.exists(entry.path):
                return BROKEN_LINK
        if not (entry.is_dir() or entry.is_file()):
            return NOT_A_FILE
        return None


def _shown(path: str) -> str:
    """A path that can be printed and written, bytes that are no text escaped."""
    return path.encode(errors="backslashreplace").decode()


def _leads_to_a_file_inside(link: str, *, top: str) -> bool:
    target = os.path.realpath(link)
    return target.startswith(os.path.join(top, "")) and os.path.isfile(target)


def _files_in(entry: os.DirEntry[str]) -> int:
    """How many files an entry stands for: itself, or all that lie below a folder."""
    if entry.is_symlink() or not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(files) for _, _, files in os.walk(entry.path))
