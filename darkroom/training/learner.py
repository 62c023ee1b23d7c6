"""A network that learns: one optimiser step at a time, on one device, in one precision."""

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from darkroom.capture.recorder import SILENT
from darkroom.config import Hyperparameters
from darkroom.images import Preprocessing
from darkroom.model.network import set_training_mode
from darkroom.training.batches import Normaliser
from darkroom.training.checkpoints import optimizer_tensors, restore_optimizer
from darkroom.training.distributed import ProcessGroup
from darkroom.training.optimisation import autocast_type, batch_loss, make_optimizer


@dataclass(frozen=True)
class StepResult:
    """What one process saw of one batch."""

    loss: float
    """This process's summed loss over the whole batch's weight, in nats."""
    correct: int


class Learner:
    """Network, optimiser, loss and precision."""

    def __init__(
        self,
        model: nn.Module,
        *,
        hyperparameters: Hyperparameters,
        preprocessing: Preprocessing,
        class_weights: Tensor,
        group: ProcessGroup,
    ) -> None:
        self.recorder = SILENT
        self.model = model.to(group.device).to(memory_format=torch.channels_last)
        self._hyperparameters = hyperparameters
        self._group = group
        self._class_weights = class_weights.to(group.device)
        self._dtype = autocast_type(
            model,
            image_size=preprocessing.image_size,
            device=group.device,
            mixed_precision=hyperparameters.mixed_precision,
        )
        self._optimizer = make_optimizer(self.model, hyperparameters=hyperparameters)
        self._scaler = torch.amp.GradScaler(group.device.type, enabled=self._dtype is torch.float16)
        self._normalise = Normaliser(
            mean=preprocessing.mean, std=preprocessing.std, device=group.device
        )
        self._forward = group.wrap(self.model)

    def start_epoch(self) -> None:
        """Training mode, batch-norm of frozen layers apart."""
        set_training_mode(self.model)

    def step(
        self,
        batch: Tensor,
        labels: Tensor,
        *,
        positions: NDArray[np.int64],
        batch_labels: Tensor,
        learning_rate: float,
    ) -> StepResult:
        """Learn from this process's share of a batch.

        Args:
            batch: (n, S, S, 3) bytes, of this process's share.
            labels: (n,) class indices, of this process's share.
            positions: (n,) of this process's share among all training images it has.
            batch_labels: class indices of the whole batch, all processes.
            learning_rate: of this step.
        """
        with self.recorder.phase("transfer"):
            images, labels = self._normalise(batch), labels.to(self._group.device)
        with self.recorder.phase("forward"):
            with self._autocast(), self.recorder.forward(self.model):
                logits = self._forward(images)
            loss = batch_loss(
                logits,
                labels,
                weights=self._class_weights,
                total_weight=float(self._class_weights[batch_labels].sum()),
                smoothing=self._hyperparameters.label_smoothing,
            )
            value = loss.item()
        correct = int((logits.detach().argmax(dim=1) == labels).sum())
        self.recorder.outcome(
            positions, images=images, logits=logits, labels=labels, loss=value, correct=correct
        )
        if math.isfinite(value):
            # DDP averages over the processes; the losses of their shares are to be added.
            self._update(loss * self._group.size, learning_rate=learning_rate)
        else:
            with self._autocast():
                self.recorder.dissect(self.model, images=images)
        return StepResult(loss=value, correct=correct)

    def logits(self, batches: Iterable[Tensor]) -> Tensor:
        """(N, C) outputs for centre-cropped batches, in float32 throughout, on the CPU."""
        self.model.eval()
        rows = []
        with torch.inference_mode():
            for number, batch in enumerate(batches):
                images = self._normalise(batch)
                with self.recorder.forward(self.model) if number == 0 else nullcontext():
                    rows.append(self.model(images).cpu())
        return torch.cat(rows)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the state_dict, on the CPU."""
        state = self.model.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimiser's tensors; see checkpoints.optimizer_tensors."""
        return optimizer_tensors(self._optimizer)

    def scaler_state(self) -> dict[str, float]:
        """Of float16's loss scaling; empty in any other precision."""
        state: dict[str, float] = self._scaler.state_dict()
        return state

    def restore(
        self,
        *,
        model: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        scaler: Mapping[str, float],
    ) -> None:
        """Go back to the state of a checkpoint."""
        self.model.load_state_dict(model)
        restore_optimizer(self._optimizer, optimizer)
        if scaler:
            self._scaler.load_state_dict(dict(scaler))

    def _update(self, loss: Tensor, *, learning_rate: float) -> None:
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = learning_rate
        with self.recorder.phase("backward"):
            self._optimizer.zero_grad()
            torch.autograd.backward(self._scaler.scale(loss))
            self._scaler.unscale_(self._optimizer)
        self.recorder.gradients()
        with self.recorder.phase("optimiser"):
            if limit := self._hyperparameters.gradient_clip:
                norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
                self.recorder.gradient_norm(float(norm))
            self._scaler.step(self._optimizer)
            self._scaler.update()

    def _autocast(self) -> AbstractContextManager[object]:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._group.device.type, dtype=self._dtype)
