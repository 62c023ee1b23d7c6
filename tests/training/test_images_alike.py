"""Training, through its cache, and serving see the same pixels of the same file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.base.files import sha256_of
from darkroom.data.dataset import ImageRecord, make_dataset
from darkroom.models.prediction import Predictor
from darkroom.training.batches import Normaliser, evaluation_batch
from darkroom.training.examples import open_pixel_cache
from hostile.images import encoded, picture
from small_bundles import write_small_bundle

SIZE = 16


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


FILES = {
    **{
        f"orientation {number}": encoded(picture(), "JPEG", exif=turned(number))
        for number in range(1, 9)
    },
    "large": encoded(picture(1601, 1203), "JPEG", exif=turned(6)),
    "large and grey": encoded(picture(1203, 1601).convert("L"), "JPEG"),
    "CMYK": encoded(picture(1200, 900).convert("CMYK"), "JPEG"),
    "progressive": encoded(picture(1200, 900), "JPEG", progressive=True),
    "several": encoded(picture(1200, 900), "MPO", save_all=True, append_images=[picture()]),
    "palette": encoded(picture().quantize(16), "PNG", transparency=3),
    "transparent": encoded(picture().convert("RGBA").rotate(20), "PNG"),
    "grey and transparent": encoded(picture().convert("LA"), "PNG"),
    "black and white": encoded(picture().convert("1"), "PNG"),
    "16 bits": encoded(
        Image.fromarray(np.arange(100 * 90, dtype=np.uint16).reshape(90, 100) * 7), "PNG"
    ),
    "WebP": encoded(picture(), "WEBP"),
    "BMP": encoded(picture(), "BMP"),
}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    loaded = Predictor.load(write_small_bundle(folder, image_size=SIZE))
    how = loaded.metadata.preprocessing.model_copy(update={"reduced_decoding": True})
    metadata = loaded.metadata.model_copy(update={"preprocessing": how})
    return Predictor(loaded.engine, metadata=metadata)


@pytest.mark.parametrize("name", FILES)
def test_training_and_serving_see_the_same_pixels(
    name: str, predictor: Predictor, tmp_path: Path
) -> None:
    file = tmp_path / "image"
    file.write_bytes(FILES[name])
    size, digest = file.stat().st_size, sha256_of(file)
    record = ImageRecord(path=file.name, label="a", split="train", size=size, sha256=digest)
    other = replace(record, path="image2", label="b")
    (tmp_path / "image2").write_bytes(FILES[name])
    dataset = make_dataset([record, other], root=tmp_path, source="test")
    how = predictor.metadata.preprocessing
    cache = open_pixel_cache(dataset, split="train", preprocessing=how, folder=tmp_path / "cache")
    normalise = Normaliser(mean=how.mean, std=how.std, device=torch.device("cpu"))

    trained_on = normalise(evaluation_batch(cache, np.arange(1), size=SIZE))[0].numpy()

    assert np.array_equal(trained_on, predictor.prepare(FILES[name]))
