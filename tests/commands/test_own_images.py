"""Settings for people's own images, where nobody wrote a configuration."""

import re
import shutil
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from commands import settings as own_images
from commands.settings import settings_to_train
from commands.source_name import own_name, short_name
from darkroom.backends.sagemaker.hosting.resources import clean
from darkroom.backends.storage import ingestion
from darkroom.base.errors import UserError
from darkroom.config import TrackingConfig
from old_zips import zip_in
from pictures import write_image_folder


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the web; importing torchvision takes seconds."""
    monkeypatch.setattr(own_images, "_imagenet_problem", lambda _architecture: "not in a test")


def photographs(folder: Path, *, size: tuple[int, int], count: int = 12, mode: str = "RGB") -> Path:
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
            pixels = generator.integers(0, 255, size=shape, dtype=np.uint8)
            Image.fromarray(pixels, mode).save(folder / label / f"{number}.png")
    return folder


def settled(source: Path | str, *overrides: str) -> dict[str, object]:
    config = settings_to_train(
        config=None, data=str(source), overrides=overrides, stack="local"
    ).config
    return {
        "experiment": config.tracking.experiment,
        "model": config.tracking.model_name,
        "size": config.model.image_size,
        "weights": config.model.weights,
        "augmentation": config.training.augmentation,
        "batches": config.tuning.search_space.batch_size.choices,
    }


def test_photographs_get_a_name_a_size_and_augmentation_of_their_own(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "My Pets", size=(160, 120))
    assert settled(folder) == {
        "experiment": "my-pets",
        "model": "my-pets",
        "size": 96,
        "weights": "none",
        "augmentation": "crop_flip",
        "batches": (4,),
    }


def test_an_archive_is_looked_into_like_a_folder(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "pets", size=(160, 120))
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", folder))
    assert settled(archive) == settled(folder)
    assert zipfile.is_zipfile(archive)


def test_a_zip_of_an_old_packer_is_looked_into_by_the_encoding_that_is_given(
    tmp_path: Path,
) -> None:
    folder = photographs(tmp_path / "pets", size=(160, 120))
    contents = {
        f"{(number % 2 and 'ソファ') or '帽子'}/{number}.png": path.read_bytes()
        for number, path in enumerate(sorted(folder.rglob("*.png")))
    }
    archive = zip_in("cp932", tmp_path / "pets.zip", contents)
    assert settled(archive, "data.zip_encoding=cp932") == settled(folder)


def test_small_pictures_are_neither_cropped_nor_mirrored(tmp_path: Path) -> None:
    found = settled(photographs(tmp_path / "signs", size=(20, 20)))
    assert (found["size"], found["augmentation"]) == (32, "none")


def test_grey_pictures_are_not_mirrored(tmp_path: Path) -> None:
    found = settled(photographs(tmp_path / "xrays", size=(70, 64), mode="L"))
    assert found["augmentation"] == "crop"


def test_what_the_user_sets_stays(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "pets", size=(160, 120), count=3)
    found = settled(
        folder,
        "model.image_size=48",
        "tracking.experiment=mine",
        "training.augmentation=none",
        "tuning.search_space.batch_size.choices=[3]",
    )
    assert (found["size"], found["experiment"], found["augmentation"]) == (48, "mine", "none")
    assert found["batches"] == (3,)


def test_what_is_told_of_choices_is_not_what_the_users_own_took_the_place_of(
    tmp_path: Path,
) -> None:
    folder = photographs(tmp_path / "pets", size=(90, 90), count=3)
    keys = [f"tuning.search_space.{name}.choices" for name in ("batch_size", "learning_rate")]
    settings = settings_to_train(
        config=None,
        data=str(folder),
        overrides=[f"{keys[0]}=[3]", f"{keys[1]}=[0.1]", "tuning.strategy=random"],
        stack="local",
    )
    assert settings.config.tuning.search_space.learning_rate.model_dump() == {"choices": (0.1,)}
    assert not [line for line in settings.told if "search_space" in line]


def test_weights_that_can_be_had_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_images, "_imagenet_problem", lambda _architecture: None)
    assert settled(photographs(tmp_path / "pets", size=(90, 90)))["weights"] == "imagenet"


def test_a_source_set_by_key_counts_as_one_given_by_option(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "pets", size=(90, 90))
    by_key = settings_to_train(
        config=None, data=None, overrides=[f"data.source={folder}"], stack="local"
    )
    assert by_key.config.tracking.experiment == "pets"


def test_each_choice_is_told_with_its_reason(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "pets", size=(90, 90))
    told = settings_to_train(config=None, data=str(folder), overrides=(), stack="local").told
    keys = [line.split("=")[0].strip() for line in told]
    assert {"tracking.experiment", "model.image_size", "model.weights"} <= set(keys)
    assert any("not in a test" in line for line in told)


def test_the_digits_keep_their_own_configuration() -> None:
    for data in (None, "digits"):
        chosen = settings_to_train(config=None, data=data, overrides=(), stack="local")
        assert (chosen.config.tracking.experiment, chosen.told) == ("digits", ())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/me/flowers/images", "flowers"),
        ("s3://bucket/dogs.tar.gz", "dogs"),
        ("https://host/x/birds.zip?signature=1", "birds"),
        ("C:\\photos\\cars", "cars"),
        ("polyvore:/data/outfits", "outfits"),
        ("/data/digits", "digits-images"),
        ("clothes", "clothes"),
        ("both-2", "both-2"),
        ("/data/flowers.v2", "flowers-v2"),
        ("/data/dogs.v1.2.TAR.gz", "dogs-v1-2"),
        ("/data/dogs.tar.bz2", "dogs"),
        ("/data/dogs.txz", "dogs"),
        ("s3://my-bucket/images/", "my-bucket"),
        ("s3://bucket/dogs v2/train=1/", "train-1"),
        ("My Café Photos", "my-cafe-photos"),
    ],
)
def test_names_come_from_the_source(source: str, name: str) -> None:
    assert own_name(source) == name


@pytest.mark.parametrize(
    ("one", "other", "begins"),
    [
        ("/data/写真", "/data/絵", "images-"),
        ("/data/写真-2", "/data/絵-2", "2-"),
        ("/data/日本 dogs.zip", "/data/中国 dogs.zip", "dogs-"),
        ("/pets/日本/images", "/pets/中国/images", "images-"),
        (f"/data/{'n' * 99}a", f"/data/{'n' * 99}b", "nnn"),
    ],
)
def test_names_that_lose_letters_stay_apart(one: str, other: str, begins: str) -> None:
    first, second = own_name(one), own_name(other)
    assert first != second
    assert first.startswith(begins)
    assert own_name(unicodedata.normalize("NFD", one)) == first


@given(st.text() | st.text(alphabet="a-. é写/\\:é#?%20", min_size=1))
def test_whatever_the_source_is_called_its_names_can_be_used(source: str) -> None:
    name = own_name(source)
    tracking = TrackingConfig(experiment=name, model_name=name)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", clean(tracking.model_name))
    assert len(short_name(source)) <= 60
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", short_name(source))
    assert len(name) <= 60


@pytest.mark.parametrize("labels", [(), ("cat",)])
def test_nothing_is_asked_about_weights_for_a_folder_that_is_refused_anyway(
    labels: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(own_images, "_imagenet_problem", asked.append)
    folder = photographs(tmp_path / "pets", size=(160, 120))
    for label in {"cat", "dog"} - set(labels):
        shutil.rmtree(folder / label)
    assert settled(folder)["weights"] == "none"
    assert settled(tmp_path / "nowhere")["weights"] == "none"
    assert settled(tmp_path / "nowhere", "model.weights=imagenet")["weights"] == "imagenet"
    assert asked == []


def test_a_folder_that_was_looked_at_is_not_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = str(write_image_folder(tmp_path / "images"))
    settings = settings_to_train(config=None, data=images, overrides=[], stack="local")
    config = settings.config.data
    expected = ingestion.source_version(images, config=config)
    monkeypatch.delattr(ingestion, "list_path")
    assert ingestion.source_version(images, config=config, listing=settings.listing) == expected
    (tmp_path / "images" / "red" / "0000.png").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        ingestion.source_version(images, config=config, listing=settings.listing)
