"""The least that training can cost: Darkroom's settings over tensors already in memory.

No decoding, no augmentation, no metrics, no checkpoints: what remains is the network and
the optimiser. Written out on purpose, sharing no code with darkroom.
"""

import time

import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy


def bare_loop(
    *, images: int, image_size: int, batch_size: int, classes: int, epochs: int, bfloat16: bool
) -> list[float]:
    """Train resnet18 on noise; images a second, by epoch."""
    model = torchvision.models.resnet18(num_classes=classes)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    batches = list(torch.randn(images, 3, image_size, image_size).split(batch_size))
    batches = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
    labels = list(torch.randint(classes, (images,)).split(batch_size))
    rates = []
    for _ in range(epochs):
        started = time.perf_counter()
        for batch, expected in zip(batches, labels, strict=True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                logits = model(batch)
            optimizer.zero_grad()
            cross_entropy(logits.float(), expected).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        rates.append(images / (time.perf_counter() - started))
    return rates
