"""Paths inside a source: which may be written, and which are of no interest."""

from pathlib import PurePosixPath, PureWindowsPath

_SYSTEM_NAMES = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "icon\r"}
    | {"@eadir", "#recycle", "lost+found", "system volume information"}
)
"""Left by macOS, Windows, Linux and Synology, whose @eaDir holds thumbnails of each image."""
_LONGEST_COMPONENT_BYTES = 255
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
    if len(name) * 4 > _LONGEST_COMPONENT_BYTES and any(
        len(part.encode()) > _LONGEST_COMPONENT_BYTES for part in parts
    ):
        return f"has a part of more than {_LONGEST_COMPONENT_BYTES} bytes"
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
