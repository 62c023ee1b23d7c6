"""Which names models may have, and where their bundles may lie."""

import re
from dataclasses import dataclass
from pathlib import Path

from darkroom.base.errors import UserError
from darkroom.models.bundle import METADATA_FILE

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,255}"
_NAME = re.compile(rf"{_PART}(/{_PART}){{0,3}}", re.ASCII)
_DEEPEST = 4
_MAX_FOLDERS = 10_000
_MAX_PLACE = 1024
ARCHIVE_ENDINGS = (".tar.gz", ".tgz")


@dataclass(frozen=True)
class ModelNames:
    """Models lie below one folder, whoever names them."""

    base: Path

    def check(self, name: str) -> None:
        """A name is a short path, of a URL as of a folder.

        Raises:
            UserError: it is not.
        """
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{name!r:.300} is no name for a model: letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit, 256 at most; up to four of them with '/' between"
            )

    def place(self, url: str) -> Path:
        """Where a bundle lies: a path below the base, absolute or relative to it.

        Raises:
            UserError: it leads elsewhere, by '..', a link or otherwise, or in a circle; or it is
                neither folder nor file.
        """
        base = self.base.resolve()
        if len(url) > _MAX_PLACE or not url.isprintable() or "\\" in url:
            raise UserError(f"{url!r:.300} is no path of a model below the models' folder")
        try:
            path = (base / url.removeprefix("file://")).resolve()
            if path == base or not path.is_relative_to(base):
                raise UserError(f"{url!r:.300} does not lie below the models' folder")
            if path.exists() and not (path.is_dir() or path.is_file()):  # a pipe would not end
                raise UserError(f"{url!r:.300} is neither a folder nor a file")
        except (OSError, RuntimeError) as error:  # too long a name, links in a circle
            raise UserError(f"{url!r:.300} is no place of a model: {error!s:.300}") from error
        return path

    def is_bundle(self, path: Path) -> bool:
        """Whether it looks like a bundle: a folder with metadata, or an archive."""
        if path.is_dir():
            return (path / METADATA_FILE).is_file()
        return path.is_file() and path.name.endswith(ARCHIVE_ENDINGS)

    def present(self) -> tuple[list[str], dict[str, str]]:
        """The bundles below the folder by name, and what is left out with the reason."""
        found, left_out, folders = list[str](), dict[str, str](), [self.base]
        for folder in folders:  # grows on the way
            try:
                paths = sorted(folder.iterdir()) if folder.is_dir() else []
            except OSError as error:
                left_out[str(folder)] = str(error)
                continue
            for path in paths:
                name = path.relative_to(self.base).as_posix()
                if path.name.startswith("."):
                    continue
                try:
                    is_bundle = self.is_bundle(self.place(name))
                    if is_bundle:
                        self.check(name)
                except UserError as error:
                    left_out[name] = str(error)
                    continue
                if is_bundle:
                    found.append(name)
                elif path.is_dir() and not path.is_symlink() and name.count("/") < _DEEPEST - 1:
                    folders.append(path)
            if len(folders) > _MAX_FOLDERS:
                left_out[str(self.base)] = f"more than {_MAX_FOLDERS:,} folders to look through"
                break
        return sorted(found), left_out
