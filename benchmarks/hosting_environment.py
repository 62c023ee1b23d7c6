"""The environments of the images, made here by the commands of their Dockerfiles.

No image engine is needed, and after `make setup` no network for the full one's packages.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

CHECKOUT = Path(__file__).resolve().parents[1]
HOSTING_LOCK = CHECKOUT / "requirements-hosting.lock"
IMAGE_LOCK = CHECKOUT / "requirements-image.lock"
HOSTING_DOCKERFILE = CHECKOUT / "infrastructure" / "Dockerfile.hosting"


class NotInstalledError(Exception):
    """An environment could not be made; says what uv said."""


def install(lock: Path, *, environment: Path, offline: bool = False, exact: bool = True) -> Path:
    """Install a lock's packages and this checkout's darkroom; return the folder of programs.

    Args:
        environment: a folder that is made; where it is an environment already, it is updated.
        offline: take everything from uv's cache.
        exact: as large as in the image, with bytecode and without links to uv's cache.

    Raises:
        NotInstalledError: there is no uv beside this Python, or it failed.
    """
    if not (environment / "pyvenv.cfg").exists():
        setup = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
        subprocess.run(setup, check=True)
    usual = ["--offline"] if offline else []
    usual += ["--compile-bytecode", "--link-mode", "copy"] if exact else []
    packages = ["sync", *usual, "--require-hashes", "--no-build", str(lock)]
    uv(packages, environment=environment)
    hashes = ["--build-constraints", str(IMAGE_LOCK), "--require-build-hashes"]
    with TemporaryDirectory(prefix="darkroom-context-") as scratch:
        context = _context(Path(scratch))
        ours = ["install", *usual, "--no-deps", "--reinstall", *hashes, str(context)]
        uv(ours, environment=environment)
    return environment / "bin"


def variables(programs: Path) -> dict[str, str]:
    """The variables that the hosting image sets, with these programs on its PATH."""
    text = HOSTING_DOCKERFILE.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (PATH=.*)$", text, flags=re.MULTILINE)
    pairs = dict(pair.split("=", 1) for pair in line.split())
    return pairs | {"PATH": f"{programs}:/usr/bin:/bin"}


def size_mb(folder: Path) -> float:
    """What a folder takes on disk, as `du` counts it, in MB of 10⁶ bytes."""
    seen: dict[tuple[int, int], int] = {}
    for path in (folder, *folder.rglob("*")):
        facts = path.lstat()
        seen[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(seen.values()) / 1e6


def _context(folder: Path) -> Path:
    """A copy of what the package is built from: building writes beside its sources."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, folder)
    bytecode = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "darkroom", folder / "darkroom", ignore=bytecode)
    return folder


def uv(arguments: list[str], *, environment: Path) -> None:
    """Run `uv pip` on an environment.

    Raises:
        NotInstalledError: there is no uv beside this Python, or it failed.
    """
    program = Path(sys.executable).with_name("uv")
    if not program.exists():
        raise NotInstalledError("uv is not installed beside this Python")
    environ = {**os.environ, "VIRTUAL_ENV": str(environment)}
    command = [str(program), "pip", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalledError(done.stderr[-500:])
