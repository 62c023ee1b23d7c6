"""Which images of a source a batch is made of, and what they show."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from darkroom.batch.labelling import SPLIT_FOLDERS, labels_of
from darkroom.batch.rows import BatchImage
from darkroom.dataset import Dataset
from darkroom.errors import UserError
from darkroom.inputs.finding import look_at
from darkroom.inputs.found import FoundImage, folders_above, shown

SplitChoice = Literal["all", "train", "validation", "test"]


def images_in_folder(
    folder: Path, *, split: SplitChoice, classes: Sequence[str], source: str
) -> list[BatchImage]:
    """The images below a folder, labelled where a folder of theirs is named like a class.

    Args:
        split: only what lies in a folder of that name.
        classes: of the model.
        source: what the user named.

    Raises:
        UserError: there are none.
    """
    (looked,) = look_at([str(folder)])
    found = looked.images or ()
    if all(image.content is None for image in found):
        reasons = "; ".join(image.error or "" for image in found)
        raise UserError(f"{source!r}: {reasons}; accepted are JPEG, PNG, WebP and BMP files")
    chosen = [image for image in found if split == "all" or _is_in(image, split=split)]
    if not chosen:
        names = ", ".join(SPLIT_FOLDERS[split])
        raise UserError(
            f"{source!r} has no split {split!r}: none of its {len(found):,} images lies in a "
            f"folder named {names}; leave --split out to take them all"
        )
    return _labelled(chosen, classes=classes, below=str(folder))


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


def images_of_uris(uris: Iterable[str], *, below: str, classes: Sequence[str]) -> list[BatchImage]:
    """Objects below an S3 prefix; their folders label them as those of a local source do."""
    prefix = below.rstrip("/")
    found = [
        FoundImage(uri, folders=(*folders_above(PurePosixPath(name)), PurePosixPath(prefix).name))
        for uri in uris
        for name in (uri.removeprefix(prefix).lstrip("/"),)
    ]
    return _labelled(found, classes=classes, below=prefix)


def _labelled(
    images: Sequence[FoundImage], *, classes: Sequence[str], below: str
) -> list[BatchImage]:
    labels = labels_of(images, classes=classes)
    return [
        BatchImage(
            name=image.source.removeprefix(shown(below)).lstrip("/") or ".",
            place=str(image.content or image.source),
            label=label and shown(label),
            error=image.error,
        )
        for image, label in zip(images, labels, strict=True)
    ]


def _is_in(image: FoundImage, *, split: SplitChoice) -> bool:
    return any(name.lower() in SPLIT_FOLDERS[split] for name in image.folders)
