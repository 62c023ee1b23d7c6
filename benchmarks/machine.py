"""The machine that a benchmark ran on."""

import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's name, as the system gives it."""
    if (info := Path("/proc/cpuinfo")).is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()
