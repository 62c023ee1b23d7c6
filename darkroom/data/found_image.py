"""One image to be classified, or what takes its place where there is none."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePath

MAX_IMAGE_BYTES = 25 * 10**6
"""Of one encoded image that has to be held in memory: from the web, or out of an archive."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An encoded image, named as its row will be; `error` says why there is none."""

    source: str
    content: bytes | Path | None = None
    error: str | None = None
    folders: tuple[str, ...] = ()
    """Names of the folders that it lies in, the nearest first, as far as they were given."""

    def label(self, classes: Collection[str]) -> str | None:
        """What it shows, where a folder bears the name of a class: the nearest that does.

        What lies deeper belongs to a class too, as it does where data sets are read.
        """
        return next((folder for folder in self.folders if folder in classes), None)


def folders_above(path: PurePath) -> tuple[str, ...]:
    """The folders of a relative path, the nearest first."""
    return tuple(reversed(path.parts[:-1]))


def shown(path: PurePath | str) -> str:
    """A path as text that can be written anywhere, even if its bytes are no text."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def too_large(size: int = 0) -> str:
    """The error of an image beyond the limit, of `size` bytes where that is known."""
    of_size = f" ({size / 1e6:.0f} MB)" if size else ""
    return f"larger than {MAX_IMAGE_BYTES // 10**6} MB{of_size}, which is the limit"
