"""Which images make up an epoch's batches, and how they are cropped.

Everything random is drawn from (seed, epoch) alone, so a resumed training sees what an
uninterrupted one would have seen, whatever the number of processes.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from darkroom.base.errors import UserError
from darkroom.config import Hyperparameters
from darkroom.data.dataset import Dataset
from darkroom.images import center_crop
from darkroom.models.network import has_active_batch_norm
from darkroom.training.distributed import ProcessGroup
from darkroom.training.examples import PixelCache, class_indices

# --- batches ---

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
    """Random crops at `size`, some mirrored if `flip`: (n, size, size, 3) bytes.

    Args:
        cache: the decoded images.
        positions: (n,) of the images in the cache.
        draws: (n, 5) numbers in [0, 1), as an `EpochPlan` has them for the batch.
        size: side of the squares, in pixels.
        flip: mirror the images whose last draw is below one half.
    """
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


# --- shares of the processes ---
# Which process trains on which images of an epoch.
#
# Where every host has all training images, each batch is drawn from all of them and cut into a
# part for each process. Where each host has a part of the images (S3's ShardedByS3Key), each
# batch is drawn on every host from what that has, in proportion. Either way an epoch has every
# image once, all processes make the same number of steps, and a step's gradient is that of its
# whole batch.
#
# What differs then: images of different hosts are combined anew in each epoch, but how many of
# a batch come from which host is not left to chance; the running statistics of batch-norm,
# which are the first process's, are those of the first host's images alone; stratified sampling
# draws the classes equally often on each host, of those that it has.


@dataclass(frozen=True)
class EpochShare:
    """An epoch, as one process sees it; by step."""

    batches: list[NDArray[np.int64]]
    """Positions of the whole batch among all training images."""
    own: list[NDArray[np.int64]]
    """This process's part, as positions among its host's images."""
    draws: list[NDArray[np.float64]]
    """For the images of `own`; see EpochPlan."""


@dataclass(frozen=True)
class DistributedSampler:
    """How the training images are dealt out."""

    dataset: Dataset
    """With those training images alone that this host has."""
    labels: NDArray[np.int64]
    """(N,) class indices of all training images."""
    owners: NDArray[np.int64] | None
    """(N,) the host that has each of them; None: every host has all."""
    group: ProcessGroup

    @classmethod
    def of(cls, dataset: Dataset, *, held: frozenset[str] | None, group: ProcessGroup) -> Self:
        """The shares, agreed upon by all hosts.

        Args:
            dataset: all images.
            held: paths of those on this host; None: every host has all.

        Raises:
            UserError: training images that no host has, or hosts that have none.
        """
        labels = class_indices(dataset, split="train")
        if held is None:
            return cls(dataset, labels, owners=None, group=group)
        paths = [record.path for record in dataset.split("train")]
        owners = _owners(paths, held=held, group=group)
        own = {path for path, owner in zip(paths, owners, strict=True) if owner == group.host}
        kept = [r for r in dataset.records if r.split != "train" or r.path in own]
        return cls(replace(dataset, records=tuple(kept)), labels, owners=owners, group=group)

    def smallest_part(self, *, batch_size: int) -> int:
        """Images of the smallest part of a batch that any process gets."""
        steps = steps_per_epoch(len(self.labels), batch_size=batch_size)
        if self.owners is None:
            return len(self.labels) // steps // self.group.size
        fewest = int(np.bincount(self.owners, minlength=self.group.hosts).min())
        return fewest // steps // (self.group.size // self.group.hosts)

    def epoch(self, number: int, *, hyperparameters: Hyperparameters) -> EpochShare:
        """Shuffle and deal out; all processes draw the same."""
        stratified = hyperparameters.imbalance == "stratified_sampling"
        if self.owners is None:
            plan = plan_epoch(
                self.labels,
                batch_size=hyperparameters.batch_size,
                seed=hyperparameters.seed,
                epoch=number,
                stratified=stratified,
            )
            own = [self.group.share(batch) for batch in plan.batches]
            return EpochShare(plan.batches, own, [self.group.share(draw) for draw in plan.draws])
        return self._from_hosts(
            self.owners,
            seed=(hyperparameters.seed, number),
            steps=steps_per_epoch(len(self.labels), batch_size=hyperparameters.batch_size),
            stratified=stratified,
        )

    def _from_hosts(
        self, owners: NDArray[np.int64], *, seed: tuple[int, int], steps: int, stratified: bool
    ) -> EpochShare:
        images = [np.flatnonzero(owners == host) for host in range(self.group.hosts)]
        plans = [
            plan_host_epoch(
                self.labels[positions], steps=steps, seed=(*seed, host), stratified=stratified
            )
            for host, positions in enumerate(images)
        ]
        mine = plans[self.group.host]
        return EpochShare(
            batches=[
                np.concatenate(
                    [p[plan.batches[step]] for p, plan in zip(images, plans, strict=True)]
                )
                for step in range(steps)
            ],
            own=[self.group.share_on_host(batch) for batch in mine.batches],
            draws=[self.group.share_on_host(draws) for draws in mine.draws],
        )


def check_batches(
    shares: DistributedSampler, *, model: nn.Module, hyperparameters: Hyperparameters
) -> None:
    """Refuse batches of which a process would get too few images.

    Raises:
        UserError: none at all, or a single one where batch-norm needs two.
    """
    images, processes = len(shares.labels), shares.group.size
    smallest = shares.smallest_part(batch_size=hyperparameters.batch_size)
    needed = 2 if has_active_batch_norm(model) else 1
    if smallest < needed:
        raise UserError(
            f"training.batch_size {hyperparameters.batch_size} leaves a process "
            f"{smallest} of the {images} training images in a step, and "
            f"{hyperparameters.architecture} needs {needed} or more: raise it to at least "
            f"{needed * processes + 1}, or use fewer processes (now {processes})"
        )


def _owners(paths: list[str], *, held: frozenset[str], group: ProcessGroup) -> NDArray[np.int64]:
    """The host of each image, the first that has it; all processes learn of all hosts."""
    present = torch.zeros((group.hosts, len(paths)), dtype=torch.uint8)
    if group.local_rank == 0:
        present[group.host] = torch.tensor([path in held for path in paths])
    present = group.sum(present)
    if lost := int((present.sum(dim=0) == 0).sum()):
        raise UserError(
            f"{lost:,} of the {len(paths):,} training images are in no host's shards. "
            "Were shards removed? Remove the manifest, and publish the data set again."
        )
    owners: NDArray[np.int64] = present.numpy().argmax(axis=0)
    counts = np.bincount(owners, minlength=group.hosts)
    if idle := np.flatnonzero(counts == 0).tolist():
        raise UserError(
            f"the hosts at positions {idle} of {group.hosts} got no training images: there are "
            "fewer shards than hosts. Use fewer instances, or the distribution FullyReplicated."
        )
    return owners
