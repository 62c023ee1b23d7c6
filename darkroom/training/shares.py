"""Which process trains on which images of an epoch.

Where every host has all training images, each batch is drawn from all of them and cut into a
part for each process. Where each host has a part of the images (S3's ShardedByS3Key), each
batch is drawn on every host from what that has, in proportion. Either way an epoch has every
image once, all processes make the same number of steps, and a step's gradient is that of its
whole batch.

What differs then: images of different hosts are combined anew in each epoch, but how many of
a batch come from which host is not left to chance; the running statistics of batch-norm,
which are the first process's, are those of the first host's images alone; stratified sampling
draws the classes equally often on each host, of those that it has.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from darkroom.config import Hyperparameters
from darkroom.dataset import Dataset
from darkroom.errors import UserError
from darkroom.model.network import has_active_batch_norm
from darkroom.training.batches import plan_epoch, plan_host_epoch, steps_per_epoch
from darkroom.training.distributed import ProcessGroup
from darkroom.training.examples import class_indices


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
class TrainingShares:
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
    shares: TrainingShares, *, model: nn.Module, hyperparameters: Hyperparameters
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
