"""What images show, by the folders that they lie in."""

from collections.abc import Collection, Sequence

from darkroom.inputs.found import FoundImage

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
