"""Zips as old packers write them: names in the encoding of their system, not marked as UTF-8."""

import zipfile
from collections.abc import Mapping
from pathlib import Path


def zip_in(encoding: str, path: Path, contents: Mapping[str, bytes], *, extra: bytes = b"") -> Path:
    """Write a zip of files by name, each name in an encoding that its entry does not tell.

    Args:
        extra: fields of every entry.
    """
    names = {f"{position:02}": name.encode(encoding) for position, name in enumerate(contents)}
    with zipfile.ZipFile(path, "w") as archive:
        for (mark, raw), content in zip(names.items(), contents.values(), strict=True):
            info = zipfile.ZipInfo(mark.ljust(len(raw), "_"))
            info.extra = extra
            archive.writestr(info, content)
    packed = path.read_bytes()
    for mark, raw in names.items():
        packed = packed.replace(mark.ljust(len(raw), "_").encode(), raw)
    path.write_bytes(packed)
    return path
