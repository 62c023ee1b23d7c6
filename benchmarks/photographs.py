"""A selection of labelled photographs for a benchmark, as a folder and as a data set."""

import sys
import tarfile
from pathlib import Path

from darkroom.base.files import sha256_of
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset

VALIDATION_IMAGES = 32


def select(source: Path, *, images: int, scratch: Path) -> Path:
    """Link an even selection of train/<class>/*.jpg, and a few to validate with, in a folder.

    `source` is a folder, or a tar archive of one.
    """
    if source.is_file():
        with tarfile.open(source) as tar:
            tar.extractall(scratch / "unpacked", filter="data")
        source = scratch / "unpacked"
    files = sorted((source / "train").glob("*/*.jpg"))
    if not files:
        sys.exit(f"no train/<class>/*.jpg in {str(source)!r}")
    wanted = min(images + VALIDATION_IMAGES, len(files))
    chosen = [files[number * len(files) // wanted] for number in range(wanted)]
    held_out = set(chosen[:: wanted // VALIDATION_IMAGES][:VALIDATION_IMAGES])
    for file in chosen:
        split = "validation" if file in held_out else "train"
        target = scratch / "images" / split / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.resolve())
    return scratch / "images"


def dataset_of(folder: Path) -> Dataset:
    """The data set in a folder that `select` made."""
    records = [
        ImageRecord(
            path=file.relative_to(folder).as_posix(),
            label=file.parent.name,
            split="train" if file.parent.parent.name == "train" else "validation",
            size=file.stat().st_size,
            sha256=sha256_of(file),
        )
        for file in folder.glob("*/*/*.jpg")
    ]
    return make_dataset(records, root=folder, source=str(folder))


def class_names(folder: Path) -> list[str]:
    """The classes in a folder that `select` made."""
    return sorted({path.name for path in folder.glob("*/*")})
