"""How many threads compute a training on the CPU.

Beside one other busy process two threads on two cores fell from 600 to between 4 and 20
images/s (resnet18, 32 pixels, batch 64), while one thread stays at 460 to 490 in either case.
Probably the threads wait for each other in busy loops while one of them is not running; with
small images they wait many times a step.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_IMAGE = 64
"""Pixels; up to here one thread."""


@contextmanager
def compute_threads(threads: int, *, image_size: int) -> Iterator[None]:
    """Compute with so many threads while the block runs.

    The number decides in which order sums are formed, so it follows from the configuration
    and the machine, never from how busy that is: the same training gives the same result.

    Args:
        threads: 0 chooses: one for images up to 64 pixels, else as many as torch would take.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or (1 if image_size <= SMALL_IMAGE else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
