"""The Dockerfiles and locks of the images, as tests read and install them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.hosting_environment import NotInstalledError, install
from checkout import CHECKOUT

DOCKERFILES = {
    "full": CHECKOUT / "infrastructure" / "Dockerfile",
    "hosting": CHECKOUT / "infrastructure" / "Dockerfile.hosting",
}


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instruction and arguments, comments left out and continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for line in lines if line for word, _, rest in [line.partition(" ")]]


def final_stage(dockerfile: Path) -> list[tuple[str, str]]:
    """What the image itself is made by."""
    found = instructions(dockerfile)
    last = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,-]+\])?==([^\s;]+)", lock.read_text(), re.M))


def installed(lock: Path, *, root: Path, exact: bool) -> Iterator[Path]:
    """bin/ of an environment with a lock's packages, from uv's cache alone; then removed."""
    try:
        yield install(lock, environment=root / "environment", offline=True, exact=exact)
    except NotInstalledError as error:
        pytest.skip(f"uv's cache does not hold the image's packages: {error}")
    finally:
        shutil.rmtree(root)
