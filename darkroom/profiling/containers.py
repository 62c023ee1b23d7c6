"""The memory limit of the container that this process runs in: Linux' cgroups, v2 and v1."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PERCENT = 100.0


@dataclass(frozen=True)
class ContainerMemory:
    """Memory under a limit; usage as `docker stats` has it, without inactive file cache."""

    limit: int
    """Bytes."""
    used: Path
    statistics: Path
    inactive: str
    """The name of the inactive file cache in `statistics`."""

    @classmethod
    def of_this_process(
        cls,
        *,
        below: int,
        groups: Path = Path("/sys/fs/cgroup"),
        membership: Path = Path("/proc/self/cgroup"),
    ) -> "ContainerMemory | None":
        """None where there is no limit below the machine's memory.

        Args:
            below: bytes of the machine; larger limits are none.
            groups: where cgroups are mounted.
            membership: the file that says to which of them this process belongs.
        """
        for folder, names in _folders(groups, membership=membership):
            maximum, current, inactive = names
            limit = _whole_number(folder / maximum)
            if limit is not None and 0 < limit < below:
                return cls(limit, folder / current, folder / "memory.stat", inactive)
        return None

    def percent(self) -> float:
        """Of the limit in use.

        Raises:
            OSError, ValueError: the files cannot be read.
        """
        used = int(self.used.read_text())
        for line in self.statistics.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == self.inactive:
                used -= int(value)
                break
        return _PERCENT * max(0, used) / self.limit


_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _folders(groups: Path, *, membership: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Where a limit may stand: the process's group and those around it, the innermost first."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if not controllers:
            mount, names = groups, _V2
        elif "memory" in controllers.split(","):
            mount, names = groups / "memory", _V1
        else:
            continue
        # Inside a container the path is often that outside, and only the mount is there.
        inner = mount / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(mount):
                break
            yield folder, names


def _whole_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # missing, or 'max'
        return None
