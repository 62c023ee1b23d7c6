"""How much memory models take, how much there is, and giving back what is free."""

import ctypes
import os
import tarfile
from pathlib import Path

from darkroom.models.bundle import ONNX_FILE

_FACTOR = 1.2
"""Resident memory of ONNX Runtime's session over the size of the file: measured at 1.0 for
resnet18 and 1.15 for mobilenet_v3_small, with what was freed given back. While it loads, a
model takes the file's size once more."""
_EACH = 8 * 2**20
"""Bytes for what a session needs whatever its network."""
_SHARE = 0.6
_DECODING_SHARE = 0.3
_MIN_DECODING_BYTES = 256 * 2**20
_M_ARENA_MAX = -8  # glibc's malloc.h
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_of(bundle: Path) -> int:
    """Bytes that a bundle, folder or archive, is counted with once it is loaded."""
    return int(_network_bytes(bundle) * _FACTOR) + _EACH


def default_limit() -> int:
    """60 % of what there is: bytes for all models together."""
    return int(available_bytes() * _SHARE)


def default_decoding_bytes() -> int:
    """30 % of what there is: bytes for all images that are decoded at once."""
    return max(_MIN_DECODING_BYTES, int(available_bytes() * _DECODING_SHARE))


def available_bytes() -> int:
    """What the container, or else the machine, has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_cgroup_limit(path, default=machine) for path in _CGROUP_LIMITS]
    return min(machine, *limits)


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


def use_one_arena() -> None:
    """Let all threads allocate from one place: 20 MB less after 1,000 requests, as fast.

    glibc gives each thread an arena of its own otherwise, and each keeps what it once needed.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)
