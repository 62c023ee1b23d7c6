"""Optimiser, learning rate, loss and precision, from hyperparameters."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer

from darkroom.config import Hyperparameters
from darkroom.model.network import has_stride_beyond_input
from darkroom.training.threads import SMALL_IMAGE


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
