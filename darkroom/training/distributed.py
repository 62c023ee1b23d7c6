"""One training in several processes, as torchrun starts them.

Each process works on its share of every batch; gradients are averaged by DDP over gloo
(CPU) or NCCL (GPU). Without torchrun's environment there is one process and nothing here
communicates.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

_LOOPBACK = "127.0.0.1"
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exit",  # NCCL's words; those above are gloo's
)
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of the training."""

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    """Position among the processes of its host."""
    host: int = 0
    """Position of its host among the hosts."""
    hosts: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def share(self, values: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """This process's part of a batch; the parts differ by one row at most."""
        parts: list[NDArray[_Scalar]] = np.array_split(values, self.size)
        return parts[self.rank]

    def share_on_host(self, values: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """This process's part of what its host alone has."""
        parts: list[NDArray[_Scalar]] = np.array_split(values, self.size // self.hosts)
        return parts[self.local_rank]

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over the processes."""
        if self.size == 1:
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)

    def sum(self, values: Tensor) -> Tensor:
        """`values`, on the CPU, added up over the processes."""
        if self.size == 1:
            return values
        total = values.to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def synchronise_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers, batch-norm's running statistics."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def from_first(self, content: bytes) -> bytes:
        """The first process's bytes, in every process."""
        if self.size == 1:
            return content
        length = torch.tensor([len(content)], device=self.device)
        dist.broadcast(length, src=0)
        data = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        if self.is_first and content:
            data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(data, src=0)
        return data.cpu().numpy().tobytes()

    @contextmanager
    def first_before_the_others(self) -> Iterator[None]:
        """Let each host's first process run the block, then the others, who find its files."""
        if self.size > 1 and self.local_rank:
            dist.barrier()
        yield
        if self.size > 1 and not self.local_rank:
            dist.barrier()


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, for the time of the block."""
    rank, size, local_rank = _number("RANK"), _number("WORLD_SIZE", 1), _number("LOCAL_RANK")
    device = _device(local_rank)
    if size == 1:
        yield ProcessGroup(rank=0, size=1, device=device)
        return
    if os.environ.get("MASTER_ADDR") == _LOOPBACK:
        # Gloo would look up the machine's own name, which need not resolve anywhere.
        interface = "lo0" if sys.platform == "darwin" else "lo"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(
            rank=rank,
            size=size,
            device=device,
            local_rank=local_rank,
            host=_number("GROUP_RANK"),
            hosts=_number("GROUP_WORLD_SIZE", 1),
        )
    finally:
        dist.destroy_process_group()


def is_lost_connection(error: Exception) -> bool:
    """Whether an error says that another process is gone, whose own error is the reason."""
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _LOST)


def _number(variable: str, default: int = 0) -> int:
    """One of torchrun's environment variables."""
    return int(os.environ.get(variable, default))


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
