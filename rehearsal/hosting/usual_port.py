"""Containers that listen on 8080, whatever SAGEMAKER_BIND_TO_PORT says: on AWS they may.

Here all share one loopback, so that one of them at a time can; and before it is believed
that a container is there, the socket has to be its own.
"""

import socket
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PORT = 8080
_PROC = Path("/proc")
_LISTENING = "0A"


def is_listening_there(process: int) -> bool:
    """Whether a process, or one that it has started, listens on port 8080.

    Args:
        process: its id; where this machine has no /proc, nothing is known of it.
    """
    if not _is_taken():
        return False
    wanted = {f"socket:[{inode}]" for inode in _inodes()}
    return any(not wanted.isdisjoint(_open_files(each)) for each in _family(process))


def _is_taken() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def _inodes() -> Iterator[str]:
    """Of the sockets that listen on the port; the columns are described in proc(5)."""
    for name in ("tcp", "tcp6"):
        for line in _lines(_PROC / "net" / name)[1:]:
            columns = line.split()
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == PORT:
                yield columns[9]


def _family(process: int) -> Iterator[int]:
    """A process and all below it."""
    children = defaultdict(list)
    for status in _PROC.glob("[0-9]*/stat"):
        # The name, in brackets, may hold blanks and brackets itself.
        fields = "".join(_lines(status)).rpartition(")")[2].split()
        if fields:
            children[int(fields[1])].append(int(status.parent.name))
    waiting = [process]
    while waiting:
        each = waiting.pop()
        yield each
        waiting.extend(children[each])


def _open_files(process: int) -> Iterator[str]:
    try:
        for entry in (_PROC / str(process) / "fd").iterdir():
            yield str(entry.readlink())
    except OSError:
        return  # it has ended, or closed the file meanwhile


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
