"""A network that learns: optimiser, schedule, loss and precision, one step at a time."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer

from darkroom.config import Hyperparameters
from darkroom.debugging.recording.recorder import SILENT
from darkroom.images import Preprocessing
from darkroom.models.network import has_stride_beyond_input, set_training_mode
from darkroom.training.batches import Normaliser
from darkroom.training.checkpoints import optimizer_tensors, restore_optimizer
from darkroom.training.distributed import ProcessGroup

# --- threads ---
# How many threads compute a training on the CPU.
#
# Beside one other busy process two threads on two cores fell from 600 to between 4 and 20
# images/s (resnet18, 32 pixels, batch 64), while one thread stays at 460 to 490 in either case.
# Probably the threads wait for each other in busy loops while one of them is not running; with
# small images they wait many times a step.

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


# --- optimiser, learning rate, loss ---
# Optimiser, learning rate, loss and precision, from hyperparameters.


def make_optimizer(model: nn.Module, *, hyperparameters: Hyperparameters) -> Optimizer:
    """AdamW or SGD over the trainable parameters, in one fused kernel a step.

    Biases and the parameters of normalisation layers, all of them vectors, do not decay.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for parameter in trainable if parameter.ndim > 1],
            "weight_decay": hyperparameters.weight_decay,
        },
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1]},
    ]
    rate = hyperparameters.learning_rate
    if hyperparameters.optimizer == "sgd":
        return SGD(groups, lr=rate, momentum=hyperparameters.momentum, fused=True)
    return AdamW(groups, lr=rate, weight_decay=0, fused=True)


def learning_rate_at(step: int, *, steps_per_epoch: int, hyperparameters: Hyperparameters) -> float:
    """Linear warm-up to the peak, then half a cosine down to zero after the last step.

    Loshchilov and Hutter, SGDR, ICLR 2017, equation 5, without restarts.

    Args:
        step: optimiser steps taken so far; 0 gives the rate of the first.
        steps_per_epoch: optimiser steps in an epoch.
        hyperparameters: peak, epochs and warm-up.
    """
    total = steps_per_epoch * hyperparameters.epochs
    warmup = round(steps_per_epoch * hyperparameters.warmup_epochs)
    if step < warmup:
        return hyperparameters.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    return hyperparameters.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def class_weights(labels: NDArray[np.int64], *, classes: int, weighted: bool) -> Tensor:
    """(C,) loss weights: ones, or N / (present classes × images of the class).

    The latter is scikit-learn's class_weight='balanced'; a class without images gets zero.
    """
    if not weighted:
        return torch.ones(classes)
    counts = np.bincount(labels, minlength=classes)
    balanced = len(labels) / (np.count_nonzero(counts) * counts.clip(1))
    return torch.from_numpy(np.where(counts > 0, balanced, 0.0)).float()


def batch_loss(
    logits: Tensor, labels: Tensor, *, weights: Tensor, total_weight: float, smoothing: float
) -> Tensor:
    """Cross entropy summed over these images, as a share of the whole batch's weight.

    Summed over the shares of all processes it is the mean loss of the batch, however
    unequal the shares are.

    Args:
        logits: (n, C) for this process's share of the batch.
        labels: (n,) class indices.
        weights: (C,) loss weights, as `class_weights` gives them.
        total_weight: sum of the weights of the whole batch's labels, over all processes.
        smoothing: label smoothing, in [0, 1).
    """
    summed = cross_entropy(
        logits.float(), labels, weight=weights, label_smoothing=smoothing, reduction="sum"
    )
    return summed / total_weight


def autocast_type(
    model: nn.Module, *, image_size: int, device: torch.device, mixed_precision: str
) -> torch.dtype | None:
    """The 16-bit type that the hardware multiplies natively; None: stay in float32.

    A CPU that lacks the instructions emulates bfloat16 at a loss. And where a convolution
    strides further than its input extends, as in deep networks on tiny images, oneDNN's
    bfloat16 kernels leave parts of the weight gradient unwritten: noise or NaN, seen with
    torch 2.14. Small images are faster in float32 even where bfloat16 is native: a step of
    mobilenet_v3_small, mobilenet_v2 and resnet18 at 32 pixels, in batches of 32 and one thread
    of a Xeon with AMX, took 0.09, 0.23 and 0.34 s against 0.31, 0.45 and 0.46 s.

    Args:
        image_size: side of the network's input, in pixels.
        mixed_precision: 'auto' or 'off', as in the configuration.
    """
    if mixed_precision == "off":
        return None
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    if (
        not native
        or image_size <= SMALL_IMAGE
        or has_stride_beyond_input(model, image_size=image_size)
    ):
        return None
    return torch.bfloat16


# --- learner ---


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
            total = float(self._class_weights[batch_labels].sum())
            loss = batch_loss(
                logits,
                labels,
                weights=self._class_weights,
                total_weight=total,
                smoothing=self._hyperparameters.label_smoothing,
            )
            value = loss.item()
        correct = int((logits.detach().argmax(dim=1) == labels).sum())
        mean = value
        if self._group.size > 1:  # recorded with this process's images is the mean over these
            mean *= total / float(self._class_weights[labels].sum())
        self.recorder.outcome(
            positions, images=images, logits=logits, labels=labels, loss=mean, correct=correct
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
