"""What a container sees of this machine: the system, its Python environment, its own folder.

Private user, mount, PID, IPC and UTS namespaces, made by `unshare` as root or as anybody;
the root is a tmpfs into which folders are bound. Of the user's nothing is shown: no home,
no /tmp, no /etc but what programs need, and of a checkout in which `darkroom` is installed
for development that package's folder alone.

    /usr, /lib, …             the machine's, read-only
    Python's environment      at its own place, read-only
    the image's folder        at its own place, read-only
    /opt/ml, /app, /tmp       below the container's folder
    /root ($HOME)             below the container's folder
    /etc/{passwd,group,hosts,resolv.conf,hostname,nsswitch.conf}   written for it
"""

import shutil
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

INIT = Path(__file__).with_name("init_process.py")
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "sys")
_ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "pki",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_WRITABLE = {"ml": "/opt/ml", "app": "/app", "tmp": "/tmp", "home": "/root"}  # noqa: S108


def initial_command(*, sandboxed: bool, isolated: bool) -> list[str]:
    """How to start a container's first process, init_process.py.

    Args:
        isolated: with a network of its own, in which there is nobody else.
    """
    python = [sys.executable, "-I", "-S", str(INIT)]
    if not sandboxed:
        return python
    network = ["--net"] if isolated else []
    namespaces = ["--map-root-user", "--mount", "--uts", "--ipc", "--pid", "--fork"]
    return ["unshare", *namespaces, "--kill-child", *network, *python]


def describe(
    folder: Path, *, image: Path | None, hostname: str, hosts: Mapping[str, str], isolated: bool
) -> dict[str, Any]:
    """The sandbox of a container, as init_process.py reads it.

    Args:
        folder: the container's own; `prepare` has made its parts.
        hosts: addresses by name, for /etc/hosts.
    """
    binds = [(str(source), str(source), False) for source in _shown(image)]
    own = [(str(folder / part), path, True) for part, path in _WRITABLE.items()]
    files = [(str(folder / "etc" / name), f"/etc/{name}", False) for name in _etc(hostname, hosts)]
    return {
        "root": str(folder / "root"),
        "hostname": hostname,
        "isolated": isolated,
        "links": _links(),
        # The container's own come first: environments may lie below /root or /tmp.
        "binds": own + binds + files + [(d, d, True) for d in _devices()],
    }


def prepare(folder: Path, *, hostname: str, hosts: Mapping[str, str]) -> None:
    """Make the parts of a container's folder."""
    for part in ("root", "etc", *_WRITABLE):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    for name, text in _etc(hostname, hosts).items():
        (folder / "etc" / name).write_text(text, encoding="utf-8")


@cache
def is_possible() -> bool:
    """Whether this machine lets us make such namespaces and mounts; tried once."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    from tempfile import TemporaryDirectory

    from rehearsal.jobs.container import Container, run_to_end

    with TemporaryDirectory(prefix="rehearsal-") as folder:
        probe = Container(folder=Path(folder), command=("true",), environment={"PATH": "/usr/bin"})
        return run_to_end(probe, sandboxed=True) == 0


def environments(image: Path | None) -> list[Path]:
    """The folders of the Python environment(s) that a container needs.

    Ours, the one that it was made from, `darkroom` where it is installed for development;
    and the image's folder with, where it is a virtual environment, what that was made from.
    """
    spec = find_spec("darkroom")
    package = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    found = [Path(sys.prefix), Path(sys.base_prefix), *package]
    if image is not None:
        found += [image, *_base_of(image)]
    return found


def _shown(image: Path | None) -> list[Path]:
    """What is bound read-only, outer folders first, nothing twice."""
    system = [p for name in _SYSTEM if (p := Path("/", name)).is_dir() and not p.is_symlink()]
    etc = [p for name in _ETC if (p := Path("/etc", name)).exists()]
    chosen: list[Path] = []
    wanted = {path.absolute() for path in environments(image)}
    for path in [*system, *etc, *sorted(wanted, key=lambda p: len(p.parts))]:
        if not any(path.is_relative_to(outer) for outer in chosen):
            chosen.append(path)
    return chosen


def _base_of(image: Path) -> Iterator[Path]:
    settings = image / "pyvenv.cfg"
    if settings.is_file():
        for line in settings.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "home":
                yield Path(value.strip()).parent


def _links() -> dict[str, str]:
    system = {f"/{n}": str(Path("/", n).readlink()) for n in _SYSTEM if Path("/", n).is_symlink()}
    standard = {"stdin": "0", "stdout": "1", "stderr": "2"}
    streams = {f"/dev/{name}": f"/proc/self/fd/{n}" for name, n in standard.items()}
    return {**system, **streams, "/dev/fd": "/proc/self/fd"}


def _devices() -> list[str]:
    names = [Path("/dev", name) for name in _DEVICES] + sorted(Path("/dev").glob("nvidia*"))
    return [str(path) for path in names if path.exists()]


def _etc(hostname: str, hosts: Mapping[str, str]) -> dict[str, str]:
    addresses = {"localhost": "127.0.0.1", hostname: "127.0.0.1", **hosts}
    return {
        "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        "group": "root:x:0:\nnogroup:x:65534:\n",
        "hosts": "".join(f"{address} {name}\n" for name, address in addresses.items()),
        "hostname": f"{hostname}\n",
        "resolv.conf": "# no name server: nothing but this machine is reached by name\n",
        "nsswitch.conf": "hosts: files\npasswd: files\ngroup: files\n",
    }
