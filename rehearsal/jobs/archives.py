"""What a training job leaves behind: model.tar.gz and output.tar.gz on S3."""

import os
import stat
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from rehearsal.emulator.state import State
from rehearsal.jobs import job_files, storage

_LEVEL = 1
"""Of compression: weights hardly shrink, and AWS's choice of level is not known."""


def store(
    roots: Sequence[Path], folder: str, *, uri: str, name: str, packed: bool, state: State
) -> str:
    """Upload the files of all hosts' folders as one archive, or one by one; the place.

    Where hosts wrote the same file, the first host's is taken.

    Args:
        roots: /opt/ml of each host.
        folder: below it.
        uri: s3://…/<job>/output.
        name: "model" or "output".
    """
    if not packed:
        for root in reversed(roots):
            storage.upload_folder(root, folder, uri=f"{uri}/{name}", state=state)
        return f"{uri}/{name}/"
    with TemporaryFile() as archive:
        _pack(roots, folder, archive=archive)
        archive.seek(0)
        storage.upload(archive, uri=f"{uri}/{name}.tar.gz", state=state)
    return f"{uri}/{name}.tar.gz"


def is_empty(roots: Sequence[Path], folder: str) -> bool:
    """Whether no host has written anything."""
    return not any(entry.is_file for root in roots for entry in job_files.entries(root, folder))


def _pack(roots: Sequence[Path], folder: str, *, archive: BinaryIO) -> None:
    """Links are packed as links; pipes, sockets and devices are left out."""
    written: set[str] = set()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=_LEVEL) as tar:
        for root in roots:
            for entry in job_files.entries(root, folder):
                if entry.path not in written:
                    written.add(entry.path)
                    _add(entry, root=root, folder=folder, tar=tar)


def _add(entry: job_files.Entry, *, root: Path, folder: str, tar: tarfile.TarFile) -> None:
    if entry.is_file:
        with (
            suppress(FileNotFoundError),
            job_files.opened(root, f"{folder}/{entry.path}") as file,
        ):
            tar.addfile(tar.gettarinfo(arcname=entry.path, fileobj=file), file)
        return
    member = tarfile.TarInfo(entry.path)
    member.mode = stat.S_IMODE(entry.status.st_mode)
    member.mtime = int(entry.status.st_mtime)
    member.uid, member.gid = entry.status.st_uid, entry.status.st_gid
    if entry.link:
        member.type, member.linkname = tarfile.SYMTYPE, os.fspath(entry.link)
    elif stat.S_ISDIR(entry.status.st_mode):
        member.type = tarfile.DIRTYPE
    else:
        return
    tar.addfile(member)
