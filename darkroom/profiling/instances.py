"""How large a SageMaker instance type is, as far as its name tells."""

import re
from dataclasses import dataclass

_NAME = re.compile(r"^ml\.(?P<family>[cmr])\d[a-z]*\.(?P<size>large|xlarge|\d+xlarge)$")
_GIB_A_CORE = {"c": 2, "m": 4, "r": 8}


@dataclass(frozen=True)
class InstanceSize:
    """Virtual CPUs and memory."""

    cores: int
    memory_gib: int


def instance_size(name: str) -> InstanceSize | None:
    """Of the families c, m and r, where AWS keeps to a rule; None of any other.

    A large has 2 virtual CPUs, an xlarge 4, an Nxlarge 4·N; a core comes with 2 (c), 4 (m)
    or 8 GiB (r).
    """
    found = _NAME.match(name)
    if not found:
        return None
    size = found["size"]
    cores = 2 if size == "large" else 4 * int(size.removesuffix("xlarge") or 1)
    return InstanceSize(cores=cores, memory_gib=cores * _GIB_A_CORE[found["family"]])
