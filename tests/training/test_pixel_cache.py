"""Images decoded once, exactly as evaluation and serving decode them."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import sha256_of
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, prepare
from darkroom.training import examples
from darkroom.training.batches import Normaliser, evaluation_batch
from darkroom.training.examples import PixelCache, open_pixel_cache

SIZES = [(40, 30), (30, 40), (33, 33), (64, 21), (20, 20), (41, 300)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Pictures of many shapes, one of them lossy, one transparent."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    root.mkdir()
    for number, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (50, 45, 3), dtype=np.uint8)).save(root / "photo.jpg")
    return dataset_of(root)


def dataset_of(root: Path) -> Dataset:
    records = [
        ImageRecord(
            path=path.name,
            label=f"class{number % 2}",
            split="train",
            size=path.stat().st_size,
            sha256=sha256_of(path),
        )
        for number, path in enumerate(sorted(root.iterdir()))
    ]
    return make_dataset(records, root=root, source="test")


def opened(dataset: Dataset, folder: Path, *, resize_size: int = 24) -> PixelCache:
    how = Preprocessing(resize_size=resize_size, image_size=16, reduced_decoding=True)
    return open_pixel_cache(dataset, split="train", preprocessing=how, folder=folder)


@pytest.mark.parametrize(("resize_size", "image_size"), [(24, 20), (37, 32), (20, 20)])
def test_centre_crops_of_the_cache_are_bit_identical_to_preprocessing(
    dataset: Dataset, tmp_path: Path, resize_size: int, image_size: int
) -> None:
    cache = opened(dataset, tmp_path / "cache", resize_size=resize_size)
    normalise = Normaliser(mean=IMAGENET_MEAN, std=IMAGENET_STD, device=torch.device("cpu"))
    batch = normalise(evaluation_batch(cache, np.arange(len(cache)), size=image_size))
    preprocessing = Preprocessing(
        resize_size=resize_size, image_size=image_size, reduced_decoding=True
    )
    for row, record in zip(batch, dataset.split("train"), strict=True):
        expected = prepare(dataset.file(record), preprocessing)
        assert np.array_equal(row.numpy(), expected)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_a_second_opening_reads_no_image(dataset: Dataset, tmp_path: Path) -> None:
    first = opened(dataset, tmp_path / "cache")
    for record in dataset.records:
        dataset.file(record).unlink()
    second = opened(dataset, tmp_path / "cache")
    assert np.array_equal(first.pixels, second.pixels)
    assert [image.shape for image in second] == [image.shape for image in first]


def test_another_size_is_another_cache(dataset: Dataset, tmp_path: Path) -> None:
    assert min(opened(dataset, tmp_path / "cache", resize_size=24)[0].shape[:2]) == 24
    assert min(opened(dataset, tmp_path / "cache", resize_size=16)[0].shape[:2]) == 16


def test_changed_content_is_decoded_anew(dataset: Dataset, tmp_path: Path) -> None:
    opened(dataset, tmp_path / "cache")
    Image.new("RGB", (30, 30), (1, 2, 3)).save(dataset.root / "0.png")
    assert (opened(dataset_of(dataset.root), tmp_path / "cache")[0] == [1, 2, 3]).all()


def test_a_cache_that_lost_its_end_is_built_again(dataset: Dataset, tmp_path: Path) -> None:
    expected = np.array(opened(dataset, tmp_path / "cache").pixels)
    (file,) = tmp_path.glob("cache/*/pixels")
    file.write_bytes(file.read_bytes()[:-100])
    assert np.array_equal(opened(dataset, tmp_path / "cache").pixels, expected)


def test_undecodable_images_are_all_named_and_nothing_is_left(
    dataset: Dataset, tmp_path: Path
) -> None:
    (dataset.root / "1.png").write_bytes(b"no image")
    photo = dataset.root / "photo.jpg"
    photo.write_bytes(photo.read_bytes()[:600])
    with pytest.raises(UserError, match=r"(?s)1\.png.*photo\.jpg.*data\.on_undecodable"):
        opened(dataset_of(dataset.root), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_pictures_that_replaced_those_ingested_are_not_filed_under_their_hashes(
    dataset: Dataset, tmp_path: Path
) -> None:
    (dataset.root / "1.png").write_bytes((dataset.root / "2.png").read_bytes())
    (dataset.root / "3.png").unlink()
    with pytest.raises(UserError) as refusal:
        opened(dataset, tmp_path / "cache")
    assert re.search(r"1\.png' is not the image that was ingested", str(refusal.value))
    assert re.search(r"3\.png' cannot be read: No such file", str(refusal.value))
    assert "--no-cache" in refusal.value.problems[-1]
    assert len(refusal.value.problems) == 3
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("name", ["pixels", "shapes.npy", "checks.npy"])
@pytest.mark.parametrize("position", [0, -1, -40_000])
def test_a_flipped_byte_is_noticed_before_it_is_trained_on(
    dataset: Dataset,
    tmp_path: Path,
    name: str,
    position: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(examples, "_BLOCK_BYTES", 10_000)
    expected = np.array(opened(dataset, tmp_path / "cache").pixels)
    (file,) = tmp_path.glob(f"cache/*/{name}")
    content = bytearray(file.read_bytes())
    content[max(position, -len(content))] ^= 1
    file.write_bytes(content)
    assert np.array_equal(opened(dataset, tmp_path / "cache").pixels, expected)


def test_a_cache_is_compared_with_its_checks_once_in_a_process(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    original = examples._checksum

    def counting(path: Path, start: int) -> int:
        looked_at.append(start)
        return original(path, start)

    monkeypatch.setattr(examples, "_checksum", counting)
    for _ in range(3):
        opened(dataset, tmp_path / "cache")
    assert looked_at == [0]


def test_a_full_disk_is_told_and_leaves_no_half_of_a_cache(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(examples.os, "fsync", full)
    with pytest.raises(DarkroomError, match=r"disk of .*cache' is full.*DARKROOM_HOME") as error:
        opened(dataset, tmp_path / "cache")
    assert error.value.exit_code == 1
    assert not list((tmp_path / "cache").iterdir())


def test_many_undecodable_images_are_counted(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(classes=["a"], per_class=25) / "a"
    for number, path in enumerate(folder.iterdir()):
        path.write_bytes(b"%d" % number)
    dataset = dataset_of(folder)
    with pytest.raises(UserError, match="and 5 more"):
        opened(dataset, tmp_path / "cache")


def test_caches_of_earlier_processes_can_be_discarded(dataset: Dataset, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    opened(dataset, cache)
    this, other = (
        Preprocessing(resize_size=size, image_size=16, reduced_decoding=True) for size in (24, 16)
    )
    (made,) = cache.iterdir()
    how = {"folder": cache, "older_than": made.stat().st_mtime}
    examples.discard_pixel_caches(dataset, preprocessing=this, **how)
    assert made.is_dir()
    os.utime(made, (1, 1))
    examples.discard_pixel_caches(dataset, preprocessing=other, **how)
    assert made.is_dir()
    examples.discard_pixel_caches(dataset, preprocessing=this, **how)
    assert not made.exists()


def test_progress_counts_the_images(dataset: Dataset, tmp_path: Path) -> None:
    counted = _Counter()
    open_pixel_cache(
        dataset,
        split="train",
        preprocessing=Preprocessing(resize_size=24, image_size=16),
        folder=tmp_path / "cache",
        progress=counted,
    )
    assert counted.total == counted.done == len(dataset.records)


class _Counter:
    total = done = 0.0

    def task(self, description: str, *, total: float | None = None) -> "_Counter":
        self.total = total or 0
        return self

    def __enter__(self) -> "_Counter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, amount: float = 1, *, detail: str = "") -> None:
        self.done += amount

    def message(self, text: str) -> None:
        pass
