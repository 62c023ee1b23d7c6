"""What an epoch consists of, and how training images are cropped."""

import numpy as np
import pytest
import torch

from darkroom.training.batches import EpochPlan, plan_epoch, steps_per_epoch, training_batch
from darkroom.training.examples import PixelCache

LABELS = np.array([0] * 70 + [1] * 20 + [2] * 7)


def plan(*, seed: int = 0, epoch: int = 1, stratified: bool = False) -> EpochPlan:
    return plan_epoch(LABELS, batch_size=16, seed=seed, epoch=epoch, stratified=stratified)


def cache_of(*images: np.ndarray) -> PixelCache:
    shapes = np.array([image.shape[:2] for image in images])
    lengths = shapes.prod(axis=1) * 3
    return PixelCache(
        pixels=np.concatenate([image.ravel() for image in images]),
        shapes=shapes,
        offsets=np.cumsum(lengths) - lengths,
    )


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.linspace(0, 255, width)[None, :]
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


def test_an_epoch_has_every_image_once_in_batches_of_nearly_one_size() -> None:
    batches = plan().batches
    assert sorted(np.concatenate(batches)) == list(range(97))
    assert {len(batch) for batch in batches} == {13, 14}
    assert len(batches) == steps_per_epoch(97, batch_size=16) == 7


def test_order_and_draws_depend_on_seed_and_epoch_alone() -> None:
    first, same = plan(), plan()
    assert all(map(np.array_equal, first.batches, same.batches))
    assert all(map(np.array_equal, first.draws, same.draws))
    for other in (plan(epoch=2), plan(seed=1)):
        assert not np.array_equal(first.batches[0], other.batches[0])
        assert not np.array_equal(first.draws[0], other.draws[0])


def test_stratified_sampling_draws_each_class_equally_often() -> None:
    order = np.concatenate(plan(stratified=True).batches)
    assert len(order) == 97
    assert sorted(np.bincount(LABELS[order])) == [32, 32, 33]
    rare = np.bincount(order, minlength=97)[90:]
    assert rare.min() >= 4
    assert rare.max() <= 5


def test_stratified_sampling_leaves_out_classes_without_images() -> None:
    labels = np.array([0, 0, 0, 2])
    batches = plan_epoch(labels, batch_size=4, seed=0, epoch=1, stratified=True).batches
    assert np.bincount(labels[np.concatenate(batches)]).tolist() == [2, 0, 2]


def test_crops_stay_inside_the_image_and_keep_their_direction() -> None:
    rng = np.random.default_rng(0)
    cache = cache_of(gradient(40, 32), gradient(32, 50))
    positions = np.array([0, 1] * 50)
    batch = training_batch(cache, positions, draws=rng.random((100, 5)), size=24, flip=False)
    assert batch.shape == (100, 24, 24, 3)
    assert batch.dtype == torch.uint8
    red, green = batch[..., 0].float(), batch[..., 1].float()
    assert (red[:, :, -1] > red[:, :, 0] + 80).all()
    assert (green[:, -1] > green[:, 0] + 80).all()


@pytest.mark.parametrize("extreme", [0.0, 1 - 1e-12])
def test_extreme_draws_stay_inside_the_image(extreme: float) -> None:
    cache = cache_of(gradient(9, 8))
    draws = np.full((1, 5), extreme)
    batch = training_batch(cache, np.array([0]), draws=draws, size=8, flip=True)
    assert batch.shape == (1, 8, 8, 3)


def test_half_of_the_crops_are_mirrored_if_left_and_right_do_not_matter() -> None:
    cache = cache_of(gradient(32, 32))
    draws = np.random.default_rng(0).random((200, 5))
    positions = np.zeros(200, dtype=np.int64)
    straight = training_batch(cache, positions, draws=draws, size=24, flip=False)
    batch = training_batch(cache, positions, draws=draws, size=24, flip=True)
    mirrored = torch.from_numpy(draws[:, 4] < 0.5)
    assert 70 < mirrored.sum() < 130
    assert torch.equal(batch[mirrored], straight[mirrored].flip(2))
    assert torch.equal(batch[~mirrored], straight[~mirrored])


def test_a_sample_s_crop_does_not_depend_on_the_rest_of_its_batch() -> None:
    cache = cache_of(gradient(40, 32), gradient(32, 50))
    positions, draws = np.array([0, 1, 0]), np.random.default_rng(0).random((3, 5))
    whole = training_batch(cache, positions, draws=draws, size=16, flip=True)
    for row in range(3):
        part = slice(row, row + 1)
        alone = training_batch(cache, positions[part], draws=draws[part], size=16, flip=True)
        assert torch.equal(alone[0], whole[row])
