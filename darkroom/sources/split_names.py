"""What folders, columns and files call the splits: Training, seg_test, val_images, dev …

The words are those of the best-known public data sets and of Hugging Face's image folders
(docs/data.md has the table). A name counts where nothing but fillers stands beside the word:
'seg_train' and '1. Training images' do, 'steam train' does not, unless 'steam test' lies
beside it.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from darkroom.dataset import Split

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
