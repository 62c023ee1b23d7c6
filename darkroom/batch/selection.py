"""Which images of a source a batch is made of, and what they show."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict

from darkroom.base.errors import UserError
from darkroom.batch.table import BatchImage
from darkroom.config import Config
from darkroom.data.dataset import Dataset
from darkroom.data.found_image import FoundImage, folders_above, shown
from darkroom.data.inputs import look_at
from darkroom.data.source_names import parse_source

# --- labels ---
# What images show, by the folders that they lie in.

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""Names of folders that hold a split."""
_SPLITS = {name for names in SPLIT_FOLDERS.values() for name in names}


def labels_of(images: Sequence[FoundImage], *, classes: Collection[str]) -> list[str | None]:
    """The label of each image: a folder named like a class, or one beside such a folder.

    The latter are classes that the model does not know: images there count as such, not as
    images without a label. Where no folder is named like a class, nothing is labelled.
    """
    known = [image.label(classes) for image in images]
    parents = {
        image.folders[image.folders.index(label) + 1 :]
        for image, label in zip(images, known, strict=True)
        if label is not None
    }
    parents.discard(())  # of the source itself, which has no folder beside it
    return [
        label or _beside(image, parents=parents) for image, label in zip(images, known, strict=True)
    ]


def _beside(image: FoundImage, *, parents: Collection[tuple[str, ...]]) -> str | None:
    """The folder of an image that lies beside folders of classes."""
    places = enumerate(image.folders, start=1)
    beside = (name for above, name in places if image.folders[above:] in parents)
    return next((name for name in beside if name.lower() not in _SPLITS), None)


# --- selection ---

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


# --- order ---
# What a batch is asked for.


class BatchJobSpec(BaseModel):
    """What `run.py batch` was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str | None
    """None: the configuration's data set, split as it is for training."""
    split: SplitChoice
    model: Path
    top_k: int
    resume: bool
    config: Config

    @property
    def whole_source(self) -> str:
        """What the split is taken from."""
        return self.config.data.source if self.source is None else self.source

    @property
    def public_source(self) -> str:
        """For people to read; without what a URL may hold of secrets."""
        return parse_source(self.whole_source).public_name
