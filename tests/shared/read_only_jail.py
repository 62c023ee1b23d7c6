"""Run a program as `docker run --read-only --cap-drop ALL` would, in an image without a shell.

    unshare --user --map-root-user --mount python -I -S read_only_jail.py PROGRAM ARGUMENT…

Every file system is mounted read-only, /dev/shm and /tmp included; shells cannot be run; the
environment is PATH alone; the user is 1000, has no capabilities, and can gain none.
"""

import ctypes
import os
import sys

_MS_BIND, _AT_FDCWD, _AT_RECURSIVE, _READ_ONLY, _SYS_MOUNT_SETATTR = 4096, -100, 0x8000, 1, 442
_PR_SET_NO_NEW_PRIVS = 38
_SHELLS = ("sh", "bash", "dash", "zsh", "busybox")


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    hide_shells(libc)
    set_attributes(libc, "/", switched_on=_READ_ONLY)
    # The next namespace's users are written there.
    set_attributes(libc, "/proc", switched_off=_READ_ONLY)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    os.execvpe("unshare", [*user, *sys.argv[1:]], {"PATH": os.environ["PATH"]})


def hide_shells(libc: ctypes.CDLL) -> None:
    paths = {
        os.path.realpath(f"{folder}/{name}") for folder in ("/bin", "/usr/bin") for name in _SHELLS
    }
    for path in filter(os.path.exists, paths):
        if libc.mount(b"/dev/null", path.encode(), None, ctypes.c_ulong(_MS_BIND), None):
            fail(path)


def set_attributes(
    libc: ctypes.CDLL, target: str, *, switched_on: int = 0, switched_off: int = 0
) -> None:
    """Of a mount and all below it: mount_setattr(2)."""
    attributes = (ctypes.c_uint64 * 4)(switched_on, switched_off, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    arguments = (_AT_FDCWD, target.encode(), _AT_RECURSIVE, ctypes.byref(attributes), size)
    if libc.syscall(ctypes.c_long(_SYS_MOUNT_SETATTR), *arguments):
        fail(target)


def fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main()
