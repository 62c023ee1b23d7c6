"""What a container sees of this machine: the system, its Python environment, its own folder.

Private user, network, mount, PID, IPC and UTS namespaces, made by `unshare` as root or as
anybody; the root is a tmpfs into which folders are bound. Of the user's nothing is shown: no
home, no /tmp, no /etc but what programs need, and of a checkout in which `darkroom` is installed
for development that package's folder alone. Of the network there is a loopback of its own, with
the doors of container.py in it. No capability is left inside, none can be had again.

    /usr, /lib, …             the machine's, read-only
    Python's environment      at its own place, read-only
    the image's folder        at its own place, read-only
    /opt/ml, /app, /tmp       below the container's folder
    /opt/ml/models            the same, read-only: filled by the emulator while it runs
    /root ($HOME)             below the container's folder
    /etc/{passwd,group,hosts,resolv.conf,hostname,nsswitch.conf}   written for it
"""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

INIT = Path(__file__).with_name("init_process.py")
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_MACHINE = ("/sys/devices/system", "/sys/fs/cgroup")
_MACHINE_WITH_GPUS = ("/sys/bus", "/sys/class", "/sys/devices", "/sys/fs/cgroup", "/sys/module")
"""What programs ask of the hardware; the rest of /sys tells, and takes, more than that."""
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
_MAX_LINE = 4096
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_WRITABLE = {"ml": "/opt/ml", "app": "/app", "tmp": "/tmp", "home": "/root"}  # noqa: S108


WALLS = {
    "files": "jobs see the system, their image and their own folders, nothing of the user's",
    "network": "jobs reach the stand-in for AWS alone; isolated ones nobody",
    "capabilities": "no capability is left in a job, and none can be had again",
    "processes": "jobs see their own processes alone",
    "nested namespaces": "jobs can make no namespaces of their own",
    "system calls": "system calls by which walls are climbed are refused",
}
"""What stands between a job and this machine, by name."""


def initial_command(*, sandboxed: bool, control: int = -1, join: int = 0) -> list[str]:
    """How to start a container's first process, init_process.py.

    Args:
        control: the number of the socket by which it speaks with the emulator.
        join: the process of another container whose network it is to share; 0: its own.
    """
    python = [sys.executable, "-I", "-S", str(INIT)]
    if not sandboxed:
        return python
    own = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
    if not join:
        return ["unshare", "--map-root-user", "--net", *own, *python, str(control)]
    shared = ["nsenter", "--target", str(join), "--user", "--net", "--preserve-credentials"]
    return [*shared, "unshare", *own, *python, str(control)]


def describe(
    folder: Path,
    *,
    image: Path | None,
    hostname: str,
    hosts: Mapping[str, str],
    reaches: Sequence[int] = (),
) -> dict[str, Any]:
    """The sandbox of a container, as init_process.py reads it.

    Args:
        folder: the container's own; `prepare` has made its parts.
        hosts: addresses by name, for /etc/hosts.
        reaches: ports of its loopback that lead out.
    """
    binds = [(str(source), str(source), False) for source in _shown(image)]
    own = [(str(folder / part), path, True) for part, path in _WRITABLE.items()]
    models = [(str(folder / "models"), "/opt/ml/models", False)]
    models = models if (folder / "models").is_dir() else []
    files = [(str(folder / "etc" / name), f"/etc/{name}", False) for name in _etc(hostname, hosts)]
    return {
        "root": str(folder / "root"),
        "hostname": hostname,
        "reaches": list(reaches),
        "links": _links(),
        # The container's own come first: environments may lie below /root or /tmp.
        "binds": [*own, *models, *binds, *files, *((d, d, True) for d in _devices())],
    }


def prepare(folder: Path, *, hostname: str, hosts: Mapping[str, str]) -> None:
    """Make the parts of a container's folder."""
    for part in ("root", "etc", *_WRITABLE):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    for name, text in _etc(hostname, hosts).items():
        (folder / "etc" / name).write_text(text, encoding="utf-8")


def is_possible() -> bool:
    """Whether this machine lets us make such namespaces and mounts; tried once."""
    return bool(walls())


@cache
def walls() -> frozenset[str]:
    """The names of the walls that can be built on this machine; tried once."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return frozenset()
    from tempfile import TemporaryDirectory

    from rehearsal.jobs.container import Container, run_to_end

    with TemporaryDirectory(prefix="rehearsal-") as folder:
        probe = Container(folder=Path(folder), command=("true",), environment={"PATH": "/usr/bin"})
        code, built = run_to_end(probe)
    if code != 0:
        return frozenset()
    return frozenset(name for name in WALLS if built.get(name, True))


def environments(image: Path | None) -> list[Path]:
    """The folders of the Python environment(s) that a container needs.

    Ours, the one that it was made from, `darkroom` where it is installed for development;
    and the image's folder with, where it is a virtual environment, what that was made from.
    """
    found = [Path(sys.prefix), Path(sys.base_prefix), *_package()]
    if image is not None:
        found += [image, *_base_of(image)]
    # Where a folder is a link, programs in it name one another by either of its names.
    named = [*found, *(folder for each in found for folder in _named_by_programs(each))]
    return list(dict.fromkeys([*named, *(path.resolve() for path in named)]))


def module_path() -> str:
    """PYTHONPATH by which programs of this environment find the same `darkroom` as we do.

    The environment may have been made for another checkout, as one that is a link has.
    """
    return os.pathsep.join(str(folder.parent) for folder in _package())


def _package() -> list[Path]:
    """The folder of `darkroom` where it is installed for development, else nothing."""
    spec = find_spec("darkroom")
    found = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    return [folder for folder in found if not folder.is_relative_to(sys.prefix)]


def _shown(image: Path | None) -> list[Path]:
    """What is bound read-only, outer folders first, nothing twice."""
    system = [p for name in _SYSTEM if (p := Path("/", name)).is_dir() and not p.is_symlink()]
    has_gpus = any(Path("/dev").glob("nvidia*"))
    system += [Path(p) for p in (_MACHINE_WITH_GPUS if has_gpus else _MACHINE) if Path(p).is_dir()]
    etc = [p for name in _ETC if (p := Path("/etc", name)).exists()]
    chosen: list[Path] = []
    wanted = {path.absolute() for path in environments(image)}
    for path in [*system, *etc, *sorted(wanted, key=lambda p: len(p.parts))]:
        if not any(path.is_relative_to(outer) for outer in chosen):
            chosen.append(path)
    return chosen


def _named_by_programs(environment: Path) -> Iterator[Path]:
    """The environment's folder as its `train` and `serve` name it in their first line."""
    for name in ("train", "serve"):
        try:
            with (environment / "bin" / name).open("rb") as file:
                line = file.readline(_MAX_LINE)
        except OSError:
            continue
        words = os.fsdecode(line).removeprefix("#!").split()
        folder = Path(words[0]).parent.parent if line.startswith(b"#!/") and words else None
        if folder and folder != environment and folder.resolve() == environment.resolve():
            yield folder


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
