"""The first process of a container: it makes the sandbox, starts the program, ends it.

Run by path, with the standard library alone: `python -I -S init_process.py`. From standard
input it reads one line of JSON (`Sandbox` and the program, see container.py), then orders:
"TERM" sends SIGTERM to the program, the end of the input kills everything. So nothing is
left when the emulator is killed. In namespaces this process is number 1 of its own, and
when it ends the kernel kills what the program has started.

Exit code: the program's; 128 + n where signal n killed it; 127 where it cannot be started.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any

_MS_BIND, _MS_REC = 4096, 16384
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_READ_ONLY = 1
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CANNOT_START = 127


def main() -> None:
    """Run one container, and exit as its program does."""
    spec = json.loads(sys.stdin.buffer.readline())
    try:
        if spec["sandbox"]:
            _enter(spec["sandbox"])
        program = _start(spec)
    except OSError as error:
        _say(f"the container cannot be set up: {error}")
        os._exit(_CANNOT_START)
    threading.Thread(target=_obey, args=(program,), daemon=True).start()
    code = _outcome(program)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program, signal.SIGKILL)
    os._exit(code)


def _start(spec: dict[str, Any]) -> int:
    program = os.fork()
    if program:
        return program
    os.setsid()
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(spec["folder"])
        os.execvpe(spec["command"][0], spec["command"], spec["environment"])  # noqa: S606
    except OSError as error:
        _say(f"exec: {spec['command'][0]!r}: {error.strerror}")
    os._exit(_CANNOT_START)


def _outcome(program: int) -> int:
    """Wait for the program; whatever else ended meanwhile is forgotten."""
    while True:
        ended, status = os.wait()
        if ended == program:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _obey(program: int) -> None:
    while order := sys.stdin.buffer.readline():
        if order == b"TERM\n":
            with contextlib.suppress(ProcessLookupError):
                os.kill(program, signal.SIGTERM)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program, signal.SIGKILL)


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def _enter(sandbox: dict[str, Any]) -> None:
    """Make a root of its own from what the sandbox shows, and move there."""
    libc = ctypes.CDLL(None, use_errno=True)
    root = sandbox["root"]
    _mount(libc, "tmpfs", target=root, kind="tmpfs", data="mode=755")
    for name in ("proc", "dev/shm", "run"):
        os.makedirs(f"{root}/{name}")
    _mount(libc, "tmpfs", target=f"{root}/dev/shm", kind="tmpfs", data="mode=1777")  # noqa: S108
    for path, target in sandbox["links"].items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for source, path, writable in sandbox["binds"]:
        _bind(libc, source, target=root + path, writable=writable)
    _mount_processes(libc, root)
    _name_host(libc, sandbox["hostname"])
    if sandbox["isolated"]:
        _raise_loopback()
    _change_root(libc, root)


def _mount(
    libc: ctypes.CDLL, source: str, *, target: str, kind: str = "", flags: int = 0, data: str = ""
) -> None:
    arguments = (source.encode(), target.encode(), kind.encode() or None)
    if libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None):
        _raise(target)


def _bind(libc: ctypes.CDLL, source: str, *, target: str, writable: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    _mount(libc, source, target=target, flags=_MS_BIND | _MS_REC)
    if not writable:
        _make_read_only(libc, target)


def _make_read_only(libc: ctypes.CDLL, target: str) -> None:
    """With all mounts below it; mount(2) cannot do that, and would drop locked flags."""
    attributes = (ctypes.c_uint64 * 4)(_ATTR_READ_ONLY, 0, 0, 0)
    if libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        _AT_FDCWD,
        target.encode(),
        _AT_RECURSIVE,
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    ):
        _raise(target)


def _mount_processes(libc: ctypes.CDLL, root: str) -> None:
    """A /proc of its own; where the machine's is masked (in Docker), that one is shown."""
    try:
        _mount(libc, "proc", target=f"{root}/proc", kind="proc")
    except OSError:
        _mount(libc, "/proc", target=f"{root}/proc", flags=_MS_BIND | _MS_REC)
    # Who is root outside could set the machine's kernel parameters here.
    _bind(libc, f"{root}/proc/sys", target=f"{root}/proc/sys", writable=False)


def _name_host(libc: ctypes.CDLL, name: str) -> None:
    if libc.sethostname(name.encode(), ctypes.c_size_t(len(name.encode()))):
        _raise(name)


def _raise_loopback() -> None:
    """A network namespace of its own has a loopback device that is switched off."""
    import fcntl
    import socket
    import struct

    set_flags, up_and_running = 0x8914, 0x1 | 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        fcntl.ioctl(device, set_flags, struct.pack("16sh14x", b"lo", up_and_running))


def _change_root(libc: ctypes.CDLL, root: str) -> None:
    os.chdir(root)
    if libc.syscall(ctypes.c_long(_SYS_PIVOT_ROOT[os.uname().machine]), b".", b"."):
        _raise(root)
    if libc.umount2(b".", _MNT_DETACH):
        _raise(root)
    os.chdir("/")


def _raise(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main()
