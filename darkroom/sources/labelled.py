"""Files with their classes and the splits that the source gives, not yet hashed."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from darkroom.dataset import SPLITS, Split
from darkroom.errors import UserError
from darkroom.sources.listing import FileEntry, LeftOut

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
    group: str | None = None
    """Files of one group belong in one split, such as the items of one outfit."""


@dataclass(frozen=True)
class Collection:
    """What a source holds, understood: the files that count, and why others do not."""

    folder: str
    """Relative to the source's root: the top folder that was looked through, or ''."""
    files: tuple[LabelledFile, ...]
    left_out: Counter[str]
    reading: str = ""
    """How the source was understood, in one line, for people to check."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Files of each class that are left out, by class."""
    unusable: tuple[str, ...] = ()
    """Class folders, or classes of a label file, without any image."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Sorted class names."""
        return tuple(sorted({file.label for file in self.files}))

    def leaving_out(self, reasons: Counter[str]) -> "Collection":
        """The same files, with more that were left out earlier, such as while unpacking."""
        left_out = LeftOut(self.left_out)
        left_out.add_all(reasons)
        return replace(self, left_out=left_out)

    def describe(self) -> str:
        """One line: counts of images, classes and splits, and what was left out."""
        counts = Counter(file.split or "train" for file in self.files)
        given = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if counts[split])
        missing = [split for split in ("validation", "test") if not counts[split]]
        to_come = f"; {' and '.join(missing)} will be taken from train" if missing else ""
        left_out = sum(self.left_out.values())
        ignored = f"; {left_out:,} other file{'s' * (left_out != 1)} left out" if left_out else ""
        classes = len(self.classes)
        return f"{len(self.files):,} images in {classes} classes ({given}{to_come}){ignored}"


def labelled(
    file: FileEntry, *, label: str, split: Split | None, group: str | None = None
) -> LabelledFile:
    """A listed file with its class, whose name is brought to one form of Unicode."""
    return LabelledFile(
        path=file.path,
        label=unicodedata.normalize("NFC", label),
        split=split,
        size=file.size,
        group=group,
    )


def check_trainable(collection: Collection, *, source: str) -> None:
    """Make sure that there is something to tell apart, and something to learn it from.

    Raises:
        UserError: no images, one class only, classes without images to train on, or class
            folders without any image.
    """
    problems = []
    if collection.unusable:
        problems.append(_unusable(collection, source=source))
    classes = collection.classes
    trained_on = {file.label for file in collection.files if file.split in (None, "train")}
    if not classes:
        if not problems:
            problems.append(
                f"{source!r} holds no images in class folders. {_passed_over(collection)}"
            )
    elif len(classes) == 1 and len(collection.unusable) == 0:
        problems.append(
            f"{source!r} holds one class only, {classes[0]!r}; a classifier needs at least two. "
            "Give one folder for each class, with its images inside, or name a file with "
            f"labels by data.labels.{_read_as(collection)}"
        )
    elif untrained := sorted(set(classes) - trained_on):
        problems.append(
            f"{source!r} has classes with no images to train on: {some(untrained)}. "
            "Add images of them to the train split, or remove them from the other splits."
            f"{_read_as(collection)}"
        )
    if problems:
        raise UserError(problems)


def some(names: Iterable[str]) -> str:
    """The first names, quoted, and the number of the rest."""
    known = list(names)
    shown = ", ".join(repr(name) for name in known[:_NAMES_IN_A_MESSAGE])
    more = len(known) - _NAMES_IN_A_MESSAGE
    return f"{shown} and {more:,} more" if more > 0 else shown


def left_out_lines(left_out: Mapping[str, int]) -> list[str]:
    """What was left out, one line a reason, the most frequent first, each with an example."""
    examples = left_out.examples if isinstance(left_out, LeftOut) else {}
    return [
        f"{count:,} × {reason}"
        + (f", such as {found[0]!r}" if (found := examples.get(reason)) else "")
        for reason, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
        if count
    ]


def _unusable(collection: Collection, *, source: str) -> str:
    several = len(collection.unusable) > 1
    return (
        f"{source!r} has {'class folders' if several else 'a class folder'} without any image "
        f"that can be read: {some(collection.unusable)}. {_reasons(collection)}"
        "Add images in a format that is read, remove the folder, or name it in data.exclude."
    )


def _passed_over(collection: Collection) -> str:
    if not any(collection.left_out.values()):
        return "It is empty. Give one folder for each class, with its images inside."
    return (
        f"{_reasons(collection)}Give one folder for each class, or name a file "
        "with labels by data.labels."
    )


def _reasons(collection: Collection) -> str:
    lines = left_out_lines(collection.left_out)
    return f"What it holds was left out: {'; '.join(lines)}. " if lines else ""


def _read_as(collection: Collection) -> str:
    return f" It was read as {collection.reading}." if collection.reading else ""
