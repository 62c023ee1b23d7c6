"""Files with their classes and the splits that the source gives, not yet hashed."""

from collections import Counter
from dataclasses import dataclass, replace

from darkroom.dataset import SPLITS, Split
from darkroom.errors import UserError
from darkroom.sources.listing import FileEntry

_NAMES_IN_A_MESSAGE = 10


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One image file with its class."""

    path: str
    """Relative to the collection's folder, with forward slashes."""
    label: str
    split: Split | None
    """None: the source says nothing about splits."""
    size: int
    """Bytes."""
    mtime_ns: int = 0
    group: str | None = None
    """Files of one group belong in one split, such as the items of one outfit."""


@dataclass(frozen=True)
class Collection:
    """What a source holds, understood: the files that count, and why others do not."""

    folder: str
    """Relative to the source's root: the top folder that was looked through, or ''."""
    files: tuple[LabelledFile, ...]
    left_out: Counter[str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Sorted class names."""
        return tuple(sorted({file.label for file in self.files}))

    def leaving_out(self, reasons: Counter[str]) -> "Collection":
        """The same files, with more that were left out earlier, such as while unpacking."""
        return replace(self, left_out=self.left_out + reasons)

    def describe(self) -> str:
        """One line: counts of images, classes and splits, and what was left out."""
        counts = Counter(file.split or "train" for file in self.files)
        given = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if counts[split])
        missing = [split for split in ("validation", "test") if not counts[split]]
        to_come = f"; {' and '.join(missing)} will be taken from train" if missing else ""
        left_out = sum(self.left_out.values())
        ignored = f"; {left_out:,} other files ignored" if left_out else ""
        classes = len(self.classes)
        return f"{len(self.files):,} images in {classes} classes ({given}{to_come}){ignored}"


def labelled(
    file: FileEntry, *, label: str, split: Split | None, group: str | None = None
) -> LabelledFile:
    """A listed file with its class."""
    return LabelledFile(
        path=file.path,
        label=label,
        split=split,
        size=file.size,
        mtime_ns=file.mtime_ns,
        group=group,
    )


def check_trainable(collection: Collection, *, source: str) -> None:
    """Make sure that there is something to tell apart, and something to learn it from.

    Raises:
        UserError: no images, one class only, or classes without images to train on.
    """
    classes = collection.classes
    if not classes:
        raise UserError(f"{source!r} holds no images in class folders. {_passed_over(collection)}")
    if len(classes) == 1:
        raise UserError(
            f"{source!r} holds one class only, {classes[0]!r}; a classifier needs at least two. "
            "Give one folder for each class, with its images inside."
        )
    trained_on = {file.label for file in collection.files if file.split in (None, "train")}
    if untrained := sorted(set(classes) - trained_on):
        raise UserError(
            f"{source!r} has classes with no images to train on: {_some(untrained)}. "
            "Add images of them to the train split, or remove them from the other splits."
        )


def _passed_over(collection: Collection) -> str:
    if not collection.left_out:
        return "It is empty. Give one folder for each class, with its images inside."
    reasons = "; ".join(f"{count:,} × {reason}" for reason, count in collection.left_out.items())
    return f"What it holds was left out: {reasons}. Give one folder for each class."


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMES_IN_A_MESSAGE])
    more = len(names) - _NAMES_IN_A_MESSAGE
    return f"{shown} and {more} more" if more > 0 else shown
