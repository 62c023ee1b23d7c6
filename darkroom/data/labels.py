"""Files with their classes and the splits that a source gives, and how folders call splits."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from darkroom.base.errors import UserError
from darkroom.config.sections import SPLITS, Split
from darkroom.data.listing import FileEntry, LeftOut

# --- split names ---
# What folders, columns and files call the splits: Training, seg_test, val_images, dev …
#
# The words are those of the best-known public data sets and of Hugging Face's image folders
# (docs/data.md has the table). A name counts where nothing but fillers stands beside the word:
# 'seg_train' and '1. Training images' do, 'steam train' does not, unless 'steam test' lies
# beside it.

_Word = Literal["train", "validation", "test", "evaluation"]

_WORDS: dict[str, _Word] = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "evaluation"),
}
_FILLERS_TEXT = (
    "set sets data dataset datasets image images img imgs picture pictures pic pics photo "
    "photos photograph photographs sample samples split splits folder folders dir files file "
    "jpg jpeg png seg final raw original resized cropped list lists labels label"
)
_FILLERS = frozenset(_FILLERS_TEXT.split())
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class _Name:
    """A name, taken apart."""

    word: _Word
    rest: tuple[str, ...]
    """What else the name says, fillers and numbers aside."""


def recognise_splits(names: Iterable[str]) -> dict[str, Split]:
    """The names that stand for a split, among names of one place.

    'evaluation' is the test split, as in Hugging Face's image folders, unless another name
    is: then it is the validation split.
    """
    parsed = {name: found for name in names if (found := _parse(name))}
    words_by_rest: dict[tuple[str, ...], set[_Word]] = defaultdict(set)
    for found in parsed.values():
        words_by_rest[found.rest].add(found.word)
    kept = {
        name: found.word
        for name, found in parsed.items()
        if not found.rest or len(words_by_rest[found.rest]) > 1
    }
    evaluation: Split = "validation" if "test" in kept.values() else "test"
    return {name: evaluation if word == "evaluation" else word for name, word in kept.items()}


def split_named(name: str) -> Split | None:
    """The split that a name alone stands for, or None."""
    return recognise_splits([name]).get(name)


def _parse(name: str) -> _Name | None:
    text = unicodedata.normalize("NFKC", name)
    return _parse_text(text) or _parse_text(_CAMEL.sub(" ", text))


def _parse_text(text: str) -> _Name | None:
    tokens = [part for token in _TOKEN.findall(text.casefold()) for part in _parts(token)]
    words = list(dict.fromkeys(_WORDS[token] for token in tokens if token in _WORDS))
    if words == ["train", "validation"]:  # one folder for both: more to train on
        words = ["train"]
    if len(words) != 1:
        return None
    rest = tuple(
        token
        for token in tokens
        if token not in _WORDS and token not in _FILLERS and not token.isdecimal()
    )
    return _Name(words[0], rest)


def _parts(token: str) -> list[str]:
    """A token, its ending taken off where it is 'trainset', 'testdata' and the like."""
    for word in _WORDS:
        if token.startswith(word) and token[len(word) :] in _FILLERS:
            return [word, token[len(word) :]]
    return [token]


# --- labelled files ---

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
    """A listed file with its class; the class name is normalised to Unicode NFC.

    Args:
        label: as the source writes it.
        split: None: the source says nothing of it.
        group: files of one group belong in one split; None: the file stands for itself.
    """
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
