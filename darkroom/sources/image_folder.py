"""Class folders, with or without train, validation and test above them, as labelled files.

    cat/1.jpg  dog/2.jpg                       splits are made later
    train/cat/1.jpg  valid/cat/2.jpg  …        splits as given
    dogImages/train/cat/1.jpg  …               one top folder is looked through

Works on paths alone, so an archive or a bucket is understood before it is fetched.
"""

from collections import Counter
from pathlib import PurePosixPath

from darkroom.dataset import Split
from darkroom.sources.labelled import Collection, LabelledFile, labelled
from darkroom.sources.listing import FileEntry, Listing

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
"""Folder name, in any case, to the split that it holds."""

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif"}
)
"""Files taken for images, in any case. Not all are supported: validation reports the others."""

NOT_AN_IMAGE = "not an image, by its extension"
NO_CLASS = "image outside the class folders"


def read_image_folder(listing: Listing) -> Collection:
    """Understand a listing as class folders.

    The class is the name of the top folder, or of the folder below the split's; what lies
    deeper belongs to it. Files that are no images by name, or in no class folder, are
    counted in `left_out`. Whether the result can be trained on is not judged here.
    """
    left_out = Counter(listing.left_out)
    images = tuple(file for file in listing.files if is_image_name(file.path))
    if others := len(listing.files) - len(images):
        left_out[NOT_AN_IMAGE] += others
    folder, inner = _look_through_top_folder(Listing(images))
    files = _label_all(inner)
    if outside := len(images) - len(files):
        left_out[NO_CLASS] += outside
    return Collection(folder=folder, files=files, left_out=left_out)


def is_image_name(path: str) -> bool:
    """Whether a file's extension is one of an image."""
    return PurePosixPath(path).suffix.lower() in IMAGE_EXTENSIONS


def _look_through_top_folder(listing: Listing) -> tuple[str, Listing]:
    """Descend while all images lie below one folder that is neither a split nor a class."""
    folder = ""
    while (top := _only_top_folder(listing)) and not _has_splits(listing):
        inner = listing.below(top)
        if any("/" not in file.path for file in inner.files):
            break
        folder, listing = f"{folder}/{top}".lstrip("/"), inner
    return folder, listing


def _only_top_folder(listing: Listing) -> str | None:
    tops = {file.path.partition("/")[0] for file in listing.files}
    only = tops.pop() if len(tops) == 1 else None
    return only if listing.files and "/" in listing.files[0].path else None


def _has_splits(listing: Listing) -> bool:
    """Whether the top folders are splits.

    They are when one named train holds folders with images, or when all bear the name of
    a split: a class that happens to be called 'test' beside 'cat' and 'dog' stays a class.
    """
    nested = [file.path.lower().split("/", 2) for file in listing.files if "/" in file.path]
    if any(parts[0] == "train" and len(parts) == 3 for parts in nested):
        return True
    return bool(nested) and {parts[0] for parts in nested} <= SPLIT_FOLDERS.keys()


def _label_all(listing: Listing) -> tuple[LabelledFile, ...]:
    label = _label_in_split if _has_splits(listing) else _label_in_class
    return tuple(found for file in listing.files if (found := label(file)))


def _label_in_class(file: FileEntry) -> LabelledFile | None:
    name, separator, _ = file.path.partition("/")
    return labelled(file, label=name, split=None) if separator else None


def _label_in_split(file: FileEntry) -> LabelledFile | None:
    parts = file.path.split("/", 2)
    split = SPLIT_FOLDERS.get(parts[0].lower())
    if split is None or len(parts) < 3:
        return None
    return labelled(file, label=parts[1], split=split)
