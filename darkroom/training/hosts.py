"""The machines of one training job, by SageMaker's resourceconfig.json."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from darkroom.errors import DarkroomError, UserError

_PORT = 29500
_SECONDS_TO_APPEAR = 600


@dataclass(frozen=True)
class Hosts:
    """All hosts of the job, and which of them this is."""

    names: tuple[str, ...] = ("localhost",)
    """Every host has the same order; the first leads."""
    current: str = "localhost"
    interface: str = ""
    """Network interface by which they reach each other; empty: left to be found."""

    @classmethod
    def of_job(cls, resources: Mapping[str, object]) -> Self:
        """The hosts by the content of resourceconfig.json; one where it says nothing.

        Raises:
            UserError: it names hosts, but not which of them this is.
        """
        names, current = resources.get("hosts"), resources.get("current_host")
        if not isinstance(names, list) or len(names) < 2:
            return cls()
        if current not in names or len(set(names)) != len(names):
            raise UserError(
                f"resourceconfig.json has the hosts {names} and the current_host {current!r}: "
                "it must be one of them, and each must be named once"
            )
        interface = resources.get("network_interface_name") or ""
        return cls(tuple(map(str, names)), current=str(current), interface=str(interface))

    @property
    def several(self) -> bool:
        """Whether the training spans more than this machine."""
        return len(self.names) > 1

    @property
    def position(self) -> int:
        """This host's number; 0 leads."""
        return self.names.index(self.current)

    @property
    def port(self) -> int:
        """Of the first host, where all meet; $MASTER_PORT, as torchrun has it, or 29500."""
        return int(os.environ.get("MASTER_PORT", _PORT))

    def environment(self) -> dict[str, str]:
        """Variables that tell gloo and NCCL which network to use."""
        if not (self.several and self.interface):
            return {}
        return {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface}

    def wait_for_names(self, *, seconds: float = _SECONDS_TO_APPEAR) -> None:
        """Wait until every host's name leads to an address: they do not start all at once.

        Raises:
            DarkroomError: some still do not.
        """
        deadline = time.monotonic() + seconds
        while missing := [name for name in self.names if self.several and not _is_known(name)]:
            if time.monotonic() >= deadline:
                raise DarkroomError(
                    f"no address was found for the hosts {missing} of this job in "
                    f"{seconds:g} s: they did not start, or the network keeps them apart"
                )
            time.sleep(1)


def _is_known(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except socket.gaierror:
        return False
    return True
