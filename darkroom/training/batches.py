"""Which images make up an epoch's batches, and how they are cropped.

Everything random is drawn from (seed, epoch) alone, so a resumed training sees what an
uninterrupted one would have seen, whatever the number of processes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from darkroom.images import center_crop
from darkroom.training.pixel_cache import PixelCache

_CROP_SIDE = (0.8, 1.0)
"""Side of a random crop, as a share of the image's shorter side.

Around the 0.875 (224/256) that evaluation sees, and far gentler than the 0.08 to 1 of the
area that training on a million photographs calls for: a digit has to stay legible.
"""

_CROP_ASPECT = (7 / 8, 8 / 7)
"""Width to height of a random crop."""


@dataclass(frozen=True)
class EpochPlan:
    """An epoch's batches before they are cut into processes' parts."""

    batches: list[NDArray[np.int64]]
    """Positions of the images in the cache."""
    draws: list[NDArray[np.float64]]
    """By batch, (n, 5) numbers in [0, 1): side, aspect, top, left and mirror."""


def steps_per_epoch(images: int, *, batch_size: int) -> int:
    """Batches into which an epoch's images are divided."""
    return math.ceil(images / batch_size)


def plan_epoch(
    labels: NDArray[np.int64], *, batch_size: int, seed: int, epoch: int, stratified: bool
) -> EpochPlan:
    """Shuffle the images into batches of `batch_size`, or one less to even them out.

    Args:
        labels: (N,) class indices.
        batch_size: images in a batch, at most.
        seed: of the whole training.
        epoch: its number.
        stratified: draw each class equally often; N images in all, none of them twice
            before each of its class was drawn once.
    """
    steps = steps_per_epoch(len(labels), batch_size=batch_size)
    return plan_host_epoch(labels, steps=steps, seed=(seed, epoch), stratified=stratified)


def plan_host_epoch(
    labels: NDArray[np.int64], *, steps: int, seed: tuple[int, ...], stratified: bool
) -> EpochPlan:
    """Shuffle the images that one host has into as many batches as all hosts make.

    Args:
        labels: (N,) class indices of the host's images.
        steps: batches, of N / steps images each, or one more.
        seed: of the training, the epoch, and the host where hosts differ.
        stratified: as in `plan_epoch`.
    """
    rng = np.random.default_rng(seed)
    order = _stratified_order(labels, rng=rng) if stratified else rng.permutation(len(labels))
    draws = rng.random((len(order), 5))
    return EpochPlan(batches=np.array_split(order, steps), draws=np.array_split(draws, steps))


def training_batch(
    cache: PixelCache,
    positions: NDArray[np.int64],
    *,
    draws: NDArray[np.float64],
    size: int,
    flip: bool,
) -> Tensor:
    """Random crops at `size`, some mirrored if `flip`: (n, size, size, 3) bytes."""
    boxes = _crop_boxes(cache.shapes[positions], draws=draws)
    batch = torch.empty((len(positions), size, size, 3), dtype=torch.uint8)
    for row, (position, (top, left, height, width)) in enumerate(
        zip(positions.tolist(), boxes.tolist(), strict=True)
    ):
        crop = cache[position][top : top + height, left : left + width]
        batch[row] = _resized(crop, size=size)
    if flip:
        mirrored = torch.from_numpy(draws[:, 4] < 0.5)
        batch[mirrored] = batch[mirrored].flip(2)
    return batch


def evaluation_batch(cache: PixelCache, positions: NDArray[np.int64], *, size: int) -> Tensor:
    """Centre crops: (n, size, size, 3) bytes."""
    return torch.from_numpy(
        np.stack([center_crop(cache[position], size) for position in positions.tolist()])
    )


class Normaliser:
    """Bytes to what the network sees, on the network's device; images.normalise in torch."""

    def __init__(
        self, *, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
    ) -> None:
        deviation = torch.tensor(std, dtype=torch.float32)
        self._scale = (1 / (255 * deviation)).to(device)
        self._offset = (torch.tensor(mean, dtype=torch.float32) / deviation).to(device)
        self._device = device

    def __call__(self, batch: Tensor) -> Tensor:
        """(n, S, S, 3) bytes to (n, 3, S, S) floats in channels-last memory order."""
        values = batch.to(self._device, non_blocking=True).to(torch.float32)
        return values.mul_(self._scale).sub_(self._offset).permute(0, 3, 1, 2)


def _stratified_order(labels: NDArray[np.int64], *, rng: np.random.Generator) -> NDArray[np.int64]:
    present = rng.permutation(np.unique(labels))
    shares = np.array_split(np.arange(len(labels)), len(present))
    drawn = [
        _draw(np.flatnonzero(labels == label), count=len(share), rng=rng)
        for label, share in zip(present, shares, strict=True)
    ]
    return rng.permutation(np.concatenate(drawn))


def _draw(members: NDArray[np.int64], *, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rounds = -(-count // len(members))
    shuffled = [rng.permutation(members) for _ in range(rounds)]
    drawn: NDArray[np.int64] = np.concatenate(shuffled)[:count]
    return drawn


def _crop_boxes(shapes: NDArray[np.int64], *, draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n, 4) top, left, height and width of random crops of images of (n, 2) shapes."""
    smallest, largest = _CROP_SIDE
    side = (smallest + (largest - smallest) * draws[:, 0]) * shapes.min(axis=1)
    low, high = np.log(_CROP_ASPECT)
    stretch = np.exp((low + (high - low) * draws[:, 1]) / 2)
    wanted = np.stack([side / stretch, side * stretch], axis=1)
    extent = np.minimum(np.rint(wanted).astype(np.int64), shapes).clip(1)
    corner = (draws[:, 2:4] * (shapes - extent + 1)).astype(np.int64)
    return np.concatenate([corner, extent], axis=1)


def _resized(crop: NDArray[np.uint8], *, size: int) -> Tensor:
    """(h, w, 3) to (size, size, 3), bilinear and antialiased as in evaluation."""
    pixels = torch.from_numpy(crop).permute(2, 0, 1)[None]
    resized = interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0)
