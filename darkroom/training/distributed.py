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
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of the training."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def share(self, values: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """This process's part of a batch; the parts differ by one row at most."""
        parts: list[NDArray[_Scalar]] = np.array_split(values, self.size)
        return parts[self.rank]

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

    @contextmanager
    def first_before_the_others(self) -> Iterator[None]:
        """Let the first process run the block, then the others, who find its files."""
        if self.size > 1 and not self.is_first:
            dist.barrier()
        yield
        if self.size > 1 and self.is_first:
            dist.barrier()


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, for the time of the block."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = _device(int(os.environ.get("LOCAL_RANK", 0)))
    if size == 1:
        yield ProcessGroup(rank=0, size=1, device=device)
        return
    if os.environ.get("MASTER_ADDR") == _LOOPBACK:
        # Gloo would look up the machine's own name, which need not resolve anywhere.
        interface = "lo0" if sys.platform == "darwin" else "lo"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(rank=rank, size=size, device=device)
    finally:
        dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
