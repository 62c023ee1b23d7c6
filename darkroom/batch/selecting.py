"""Which images of a source a batch is made of, and what they show."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from darkroom.batch.rows import BatchImage
from darkroom.dataset import Dataset
from darkroom.errors import UserError
from darkroom.inputs.finding import look_at
from darkroom.inputs.found import FoundImage, folders_above

SplitChoice = Literal["all", "train", "validation", "test"]

_FOLDERS: dict[SplitChoice, tuple[str, ...]] = {
    "all": (),
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""Names of folders that hold a split."""


def images_in_folder(
    folder: Path, *, split: SplitChoice, classes: Sequence[str], source: str
) -> list[BatchImage]:
    """The images below a folder; those in a class's folder are labelled.

    Args:
        split: only what lies in a folder of that name.
        classes: of the model: other folders are no labels.
        source: what the user named.

    Raises:
        UserError: there are none.
    """
    (looked,) = look_at([str(folder)])
    found = [image for image in looked.images or () if isinstance(image.content, Path)]
    if not found:
        raise UserError(f"{source!r} holds no images; accepted are JPEG, PNG, WebP and BMP files")
    chosen = [image for image in found if split == "all" or _is_in(image, split=split)]
    if not chosen:
        names = ", ".join(_FOLDERS[split])
        raise UserError(
            f"{source!r} has no split {split!r}: none of its {len(found):,} images lies in a "
            f"folder named {names}; leave --split out to take them all"
        )
    return [_image(image, folder=folder, classes=classes) for image in chosen]


def images_of_dataset(dataset: Dataset, *, split: SplitChoice) -> list[BatchImage]:
    """The images of a data set's split, all of them labelled.

    Raises:
        UserError: there are none.
    """
    records = [r for r in dataset.records if split in ("all", r.split)]
    if not records:
        raise UserError(f"the data set has no images in the split {split!r}")
    return [
        BatchImage(name=record.path, place=str(dataset.file(record)), label=record.label)
        for record in records
    ]


def image_of_uri(uri: str, *, below: str, classes: Sequence[str]) -> BatchImage:
    """An object below an S3 prefix; its folders label it as those of a local source do."""
    name = uri.removeprefix(below.rstrip("/")).lstrip("/")
    image = FoundImage(name, folders=folders_above(PurePosixPath(name)))
    return BatchImage(name=name, place=uri, label=image.label(classes))


def _is_in(image: FoundImage, *, split: SplitChoice) -> bool:
    return any(name.lower() in _FOLDERS[split] for name in image.folders)


def _image(image: FoundImage, *, folder: Path, classes: Sequence[str]) -> BatchImage:
    assert isinstance(image.content, Path)  # noqa: S101 - as they were chosen
    name = image.content.relative_to(folder).as_posix()
    return BatchImage(name=name, place=str(image.content), label=image.label(classes))
