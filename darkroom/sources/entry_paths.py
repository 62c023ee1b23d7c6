"""Paths inside a source: which may be written, and which are of no interest."""

from pathlib import PurePosixPath, PureWindowsPath

_SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin"})
_LONGEST_COMPONENT_BYTES = 255
"""NAME_MAX of Linux and macOS file systems."""


def unsafe_reason(name: str) -> str | None:
    """Why a path from an archive or a bucket must not be written, or None.

    Backslashes count as separators, as they do for the tools that write them.
    """
    parts = name.replace("\\", "/").split("/")
    if ".." in parts:
        return "leads out of the folder"
    if parts[0] == "" or PureWindowsPath(name).drive:
        return "is an absolute path"
    if "\0" in name or any(len(part.encode()) > _LONGEST_COMPONENT_BYTES for part in parts):
        return "is no usable file name"
    return None


def inner_path(name: str) -> str:
    """A safe path in canonical form: forward slashes, no empty or `.` component."""
    return str(PurePosixPath(name.replace("\\", "/")))


def is_hidden(path: str) -> bool:
    """Whether a path is hidden, or is what an operating system leaves behind."""
    return any(is_hidden_name(part) for part in path.split("/"))


def is_hidden_name(name: str) -> bool:
    """`is_hidden` of one component."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES
