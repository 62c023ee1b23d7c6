"""The first process of a container: it builds the walls, starts the program, ends it.

Run by path, with the standard library alone: `python -I -S init_process.py [CONTROL]`. From
standard input it reads one line of JSON (the sandbox and the program, see container.py), then
orders: "START" starts the program, "TERM" sends it SIGTERM, the end of the input kills everything.
So nothing is left when the emulator is killed. In namespaces this process is number 1 of its own,
and when it ends the kernel kills what the program has started.

CONTROL is the number of a Unix socket (SEQPACKET) to the emulator, see container.py. Over it go,
once, the walls that stand and sockets that listen inside; and for each "connect PORT" that comes,
a socket that is connected to a program inside.

Exit code: the program's; 128 + n where signal n killed it; 127 where it cannot be started.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
import threading
from typing import Any

_MS_READ_ONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC = 4096, 16384
_MNT_DETACH = 2
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_ATTR_READ_ONLY = 1
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CANNOT_START = 127
_MASKED = (
    *("acpi", "kcore", "keys", "kpageflags", "kpagecount", "latency_stats", "sched_debug"),
    *("scsi", "timer_list", "timer_stats", "kmsg", "kallsyms"),
)
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
"""Below /proc; as the OCI's runtimes do: who is root outside could change the machine there."""

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS = 4, 24, 28
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_SECCOMP = 38, 47, 22
_NO_ROOT_FOR_EVER = 0xEF
"""All secure bits but KEEP_CAPS, all of them locked: capabilities(7)."""
_CAPABILITY_VERSION = 0x20080522
_JOIN_SESSION_KEYRING = 1

_DENIED = {
    # name: (x86_64, aarch64); those above 424 have one number everywhere.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    **{name: (n, n) for n, name in enumerate(("io_uring_setup", "io_uring_enter"), 425)},
    **{name: (n, n) for n, name in enumerate(("open_tree", "move_mount", "fsopen"), 428)},
    **{name: (n, n) for n, name in enumerate(("fsconfig", "fsmount", "fspick"), 431)},
    "mount_setattr": (442, 442),
}
_CLONE, _CLONE3 = (56, 220), 435
_NEW_NAMESPACES = 0x7E020000
_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000


def main() -> None:
    """Run one container, and exit as its program does."""
    spec = json.loads(sys.stdin.buffer.readline())
    control = None
    try:
        if len(sys.argv) > 1:
            control = socket.socket(fileno=int(sys.argv[1]))
            control.set_inheritable(False)
        if spec["sandbox"]:
            _build_walls(spec["sandbox"], control=control)
        if sys.stdin.buffer.readline() != b"START\n":  # ended before it began
            os._exit(128 + signal.SIGTERM)
        program = _start(spec)
    except OSError as error:
        _say(f"the container cannot be set up: {error}")
        os._exit(_CANNOT_START)
    threading.Thread(target=_obey, args=(program,), daemon=True).start()
    if control is not None:
        threading.Thread(target=_connect_for, args=(control,), daemon=True).start()
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
    kill(program)


def kill(program: int) -> None:
    """End a program and all of its group; harmless where they have ended."""
    try:
        os.killpg(program, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet, or has ended
        with contextlib.suppress(ProcessLookupError):
            os.kill(program, signal.SIGKILL)


def _connect_for(control: socket.socket) -> None:
    """Connect to programs inside, for the emulator outside."""
    while order := control.recv(64):
        with socket.socket() as inner:
            inner.settimeout(2)
            try:
                inner.connect(("127.0.0.1", int(order.rpartition(b" ")[2])))
            except OSError:
                control.send(b"refused")
            else:
                socket.send_fds(control, [b"connected"], [inner.fileno()])


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def _build_walls(sandbox: dict[str, Any], *, control: socket.socket | None) -> None:
    """Everything that the program shall not be able to undo; then no privilege is left."""
    libc = ctypes.CDLL(None, use_errno=True)
    walls = {"nested namespaces": _forbid_nested_namespaces()}
    _raise_loopback()
    doors = [socket.create_server(("127.0.0.1", port)) for port in sandbox["reaches"]]
    walls["processes"] = _enter(libc, sandbox)
    _forget_keys(libc)
    _drop_privileges(libc)
    walls["system calls"] = _filter_calls(libc)
    if control is not None:
        message = json.dumps(walls).encode()
        socket.send_fds(control, [message], [door.fileno() for door in doors])
    for door in doors:
        door.close()


def _forbid_nested_namespaces() -> bool:
    """In a user namespace of its own the program would have all capabilities again."""
    try:
        with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
            file.write("0")
    except OSError:
        return False
    return True


def _raise_loopback() -> None:
    """A network namespace of its own has a loopback device that is switched off."""
    import fcntl

    set_flags, up_and_running = 0x8914, 0x1 | 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        fcntl.ioctl(device, set_flags, struct.pack("16sh14x", b"lo", up_and_running))
    # A container's root may use ports below 1024, without a capability too.
    with (
        contextlib.suppress(OSError),
        open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w", encoding="ascii") as file,
    ):
        file.write("0")


def _enter(libc: ctypes.CDLL, sandbox: dict[str, Any]) -> bool:
    """Make a root of its own from what the sandbox shows, and move there.

    Returns:
        Whether it sees its own processes alone.
    """
    root = sandbox["root"]
    _mount(libc, "tmpfs", target=root, kind="tmpfs", data="mode=755")
    for name in ("proc", "dev/shm", "run", ".empty"):
        os.makedirs(f"{root}/{name}")
    _mount(libc, "tmpfs", target=f"{root}/dev/shm", kind="tmpfs", data="mode=1777")  # noqa: S108
    for path, target in sandbox["links"].items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for source, path, writable in sandbox["binds"]:
        _bind(libc, source, root=root, path=path, writable=writable)
    alone = _mount_processes(libc, root)
    _name_host(libc, sandbox["hostname"])
    _change_root(libc, root)
    return alone


def _mount(
    libc: ctypes.CDLL, source: str, *, target: str, kind: str = "", flags: int = 0, data: str = ""
) -> None:
    arguments = (source.encode(), target.encode(), kind.encode() or None)
    if libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None):
        _raise(target)


def _bind(libc: ctypes.CDLL, source: str, *, root: str, path: str, writable: bool) -> None:
    """Show a file or folder of the machine's at a path below the root.

    What lies there already may be the container's own, from an earlier start: no link in it is
    followed, since it would lead out of the root.
    """
    is_folder = os.path.isdir(source)
    parent, name = _parent_below(root, path)
    try:
        with contextlib.suppress(FileExistsError):
            if is_folder:
                os.mkdir(name, dir_fd=parent)
            else:
                os.mknod(name, 0o644, dir_fd=parent)
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
        _mount(libc, source, target=f"/proc/self/fd/{place}", flags=_MS_BIND | _MS_REC)
        os.close(place)
        if not writable:
            _make_read_only(libc, name, parent=parent)
    finally:
        os.close(parent)


def _parent_below(root: str, path: str) -> tuple[int, str]:
    """The folder in which a path below the root ends, open, and its name there."""
    *folders, name = path.strip("/").split("/")
    here = os.open(root, os.O_PATH | os.O_DIRECTORY)
    for folder in folders:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, dir_fd=here)
        below = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
        os.close(here)
        here = below
    return here, name


def _make_read_only(libc: ctypes.CDLL, name: str, *, parent: int) -> None:
    """With all mounts below it; mount(2) cannot do that, and would drop locked flags."""
    mounted = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
    attributes = (ctypes.c_uint64 * 4)(_ATTR_READ_ONLY, 0, 0, 0)
    failed = libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(mounted),
        b"",
        ctypes.c_uint(_AT_RECURSIVE | _AT_EMPTY_PATH),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    os.close(mounted)
    if failed:
        _raise(name)


def _mount_processes(libc: ctypes.CDLL, root: str) -> bool:
    """A /proc of its own; where the machine's is masked (in Docker), that one is shown."""
    target = f"{root}/proc"
    try:
        _mount(libc, "proc", target=target, kind="proc", flags=_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        alone = True
    except OSError:
        _mount(libc, "/proc", target=target, flags=_MS_BIND | _MS_REC)
        alone = False
    for name in _MASKED:
        if os.path.exists(f"{target}/{name}"):
            empty = f"{root}/.empty" if os.path.isdir(f"{target}/{name}") else "/dev/null"
            _bind(libc, empty, root=root, path=f"/proc/{name}", writable=False)
    for name in _READ_ONLY:
        if os.path.exists(f"{target}/{name}"):
            _bind(libc, f"{target}/{name}", root=root, path=f"/proc/{name}", writable=False)
    return alone


def _name_host(libc: ctypes.CDLL, name: str) -> None:
    if libc.sethostname(name.encode(), ctypes.c_size_t(len(name.encode()))):
        _raise(name)


def _change_root(libc: ctypes.CDLL, root: str) -> None:
    os.chdir(root)
    if libc.syscall(ctypes.c_long(_SYS_PIVOT_ROOT[os.uname().machine]), b".", b"."):
        _raise(root)
    if libc.umount2(b".", _MNT_DETACH):
        _raise(root)
    os.chdir("/")


def _forget_keys(libc: ctypes.CDLL) -> None:
    """An empty session keyring in place of the user's."""
    numbers = _DENIED["keyctl"]
    machine = os.uname().machine
    if machine in _AUDIT_ARCHITECTURES:
        number = numbers[list(_AUDIT_ARCHITECTURES).index(machine)]
        libc.syscall(ctypes.c_long(number), ctypes.c_int(_JOIN_SESSION_KEYRING), None)


def _drop_privileges(libc: ctypes.CDLL) -> None:
    """Of all capabilities none is left, none can be had again, and nobody may look into us."""
    capability = 0
    while not libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0):
        capability += 1
    if ctypes.get_errno() != errno.EINVAL:  # there is no such capability any more
        _raise("capabilities")
    if libc.prctl(_PR_SET_SECUREBITS, ctypes.c_ulong(_NO_ROOT_FOR_EVER), 0, 0, 0):
        _raise("secure bits")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(ctypes.byref(header), ctypes.byref(nothing)):
        _raise("capabilities")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0):
        _raise("no_new_privs")
    # Lost again by the program's exec, so that it can be debugged inside.
    libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0)


def _filter_calls(libc: ctypes.CDLL) -> bool:
    """Refuse system calls that no job needs, and by which kernels have been broken into."""
    machine = os.uname().machine
    if machine not in _AUDIT_ARCHITECTURES:
        return False
    code = b"".join(_instructions(machine))
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    return not libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), program, 0, 0)


def _instructions(machine: str) -> list[bytes]:
    """A classic BPF program: seccomp(2), linux/filter.h."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allowed, refused, missing = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS

    def step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    column = list(_AUDIT_ARCHITECTURES).index(machine)
    program = [
        step(load, 4),  # the architecture
        step(equal, _AUDIT_ARCHITECTURES[machine], yes=1),
        step(answer, refused),
        step(load, 0),  # the number of the call
        step(at_least, _X32, no=1),
        step(answer, refused),
        step(equal, _CLONE3, no=1),
        step(answer, missing),  # its flags lie in memory; libraries then use clone
    ]
    for numbers in _DENIED.values():
        program += [step(equal, numbers[column], no=1), step(answer, refused)]
    return [
        *program,
        step(equal, _CLONE[column], no=3),
        step(load, 16),  # its flags
        step(any_bit, _NEW_NAMESPACES, no=1),
        step(answer, refused),
        step(answer, allowed),
    ]


def _raise(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main()
