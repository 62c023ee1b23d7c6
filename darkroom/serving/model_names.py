"""Which names models may have, and where their bundles may lie."""

import re
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,255}", re.ASCII)
_LONGEST_PLACE = 1024
ARCHIVE_ENDINGS = (".tar.gz", ".tgz")


@dataclass(frozen=True)
class ModelNames:
    """Models lie below one folder, whoever names them."""

    base: Path

    def check(self, name: str) -> None:
        """A name is one part of a path, of a URL as of a folder.

        Raises:
            UserError: it is not.
        """
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{name!r:.300} is no name for a model: letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit, 256 at most"
            )

    def place(self, url: str) -> Path:
        """Where a bundle lies: a path below the base, absolute or relative to it.

        Raises:
            UserError: it leads elsewhere, by '..', a link or otherwise.
        """
        base = self.base.resolve()
        if len(url) > _LONGEST_PLACE or not url.isprintable() or "\\" in url:
            raise UserError(f"{url!r:.300} is no path of a model below the models' folder")
        path = (base / url.removeprefix("file://")).resolve()
        if path == base or not path.is_relative_to(base):
            raise UserError(f"{url!r:.300} does not lie below the models' folder")
        return path

    def present(self) -> list[str]:
        """What lies directly in the folder and may be a bundle: folders and archives."""
        if not self.base.is_dir():
            return []
        found = [
            path.name
            for path in self.base.iterdir()
            if path.is_dir() or path.name.endswith(ARCHIVE_ENDINGS)
        ]
        return sorted(name for name in found if _NAME.fullmatch(name))
