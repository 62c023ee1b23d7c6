"""How much memory models take, and how much there is."""

import os
import tarfile
from pathlib import Path

from darkroom.model.bundle import ONNX_FILE

_FACTOR = 2.0
"""ONNX Runtime's weights, copied and laid out anew, over the size of the file: measured at 1.3
(resnet18) to 2.0 (mobilenet_v3_small)."""
_EACH = 16 * 2**20
"""Bytes for the activations of a batch, and what a session needs whatever its network."""
_SHARE = 0.6
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_of(bundle: Path) -> int:
    """Bytes that a bundle, folder or archive, is counted with once it is loaded."""
    return int(_network_bytes(bundle) * _FACTOR) + _EACH


def default_limit() -> int:
    """60 % of what the container, or else the machine, has: bytes for all models together."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_cgroup_limit(path, default=machine) for path in _CGROUP_LIMITS]
    return int(min(machine, *limits) * _SHARE)


def _network_bytes(bundle: Path) -> int:
    if bundle.is_dir():
        network = bundle / ONNX_FILE
        return network.stat().st_size if network.is_file() else 0
    try:
        with tarfile.open(bundle, mode="r:*") as archive:
            return sum(member.size for member in archive if member.name.endswith(ONNX_FILE))
    except (tarfile.TarError, OSError, EOFError):
        return 0  # loading it says what is wrong


def _cgroup_limit(path: Path, *, default: int) -> int:
    try:
        text = path.read_text().strip()
    except OSError:
        return default
    return int(text) if text.isdecimal() else default
