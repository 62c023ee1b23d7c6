"""What the training loop tells of itself, step by step, and what becomes of it.

The loop calls a `Recorder`; `SILENT` does nothing and costs next to nothing.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.profiling.phases import Phase
from darkroom.rules.findings import Finding
from darkroom.training.history import EpochMetrics


class Recorder(Protocol):
    """Takes note of a training."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """The block's time belongs to a phase."""

    def step(
        self, number: int, *, epoch: int, learning_rate: float
    ) -> AbstractContextManager[None]:
        """The block is one training step, counted from 0 over the whole training."""

    def forward(self, model: nn.Module) -> AbstractContextManager[None]:
        """The block is the network's forward pass."""

    def outcome(
        self,
        positions: NDArray[np.int64],
        *,
        images: Tensor,
        logits: Tensor,
        labels: Tensor,
        loss: float,
        correct: int,
    ) -> None:
        """What the forward pass came to, before anything is learned from it."""

    def gradients(self) -> None:
        """The gradients are there, neither clipped nor applied."""

    def gradient_norm(self, norm: float) -> None:
        """The norm of all gradients, before clipping."""

    def dissect(self, model: nn.Module, *, images: Tensor) -> None:
        """The loss is not finite: look where in the network it began."""

    def evaluation(self, epoch: int) -> AbstractContextManager[None]:
        """The block evaluates the network after an epoch."""

    def evaluated(self, *, logits: Tensor, labels: NDArray[np.int64]) -> None:
        """What the evaluation came to."""

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch is over and on the disk."""

    def verdict(self) -> Finding | None:
        """The finding for which the training is to end; None: go on."""

    def ended_by(self, finding: Finding) -> None:
        """The training ends before its last epoch, for this finding."""


class _Silent:
    """Takes no note of anything."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        return _NOTHING

    def step(
        self, number: int, *, epoch: int, learning_rate: float
    ) -> AbstractContextManager[None]:
        return _NOTHING

    def forward(self, model: nn.Module) -> AbstractContextManager[None]:
        return _NOTHING

    def outcome(
        self,
        positions: NDArray[np.int64],
        *,
        images: Tensor,
        logits: Tensor,
        labels: Tensor,
        loss: float,
        correct: int,
    ) -> None:
        return None

    def gradients(self) -> None:
        return None

    def gradient_norm(self, norm: float) -> None:
        return None

    def dissect(self, model: nn.Module, *, images: Tensor) -> None:
        return None

    def evaluation(self, epoch: int) -> AbstractContextManager[None]:
        return _NOTHING

    def evaluated(self, *, logits: Tensor, labels: NDArray[np.int64]) -> None:
        return None

    def epoch(self, metrics: EpochMetrics) -> None:
        return None

    def verdict(self) -> Finding | None:
        return None

    def ended_by(self, finding: Finding) -> None:
        return None


_NOTHING = nullcontext()
SILENT: Recorder = _Silent()
