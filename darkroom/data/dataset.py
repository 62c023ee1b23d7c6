"""The data set: a manifest of labelled image files and a fingerprint of their content."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from darkroom.config.sections import SPLITS, Split

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image file of a data set."""

    path: str
    """Relative to the data set's root, with forward slashes."""
    label: str
    split: Split
    size: int
    """Bytes."""
    sha256: str
    group: str = ""
    """Person, patient or place; images of one group belong in one split. Empty: not known."""


@dataclass(frozen=True)
class Provenance:
    """How a source was understood, and what became of the files that are not in the data set."""

    reading: str = ""
    """What was taken for splits and classes, in one line."""
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The first files that were left out, by reason; relative to the source."""
    lost: dict[str, int] = field(default_factory=dict)
    """Files of each class folder that could not be used, by class."""


_RECORD_FIELDS = tuple(field.name for field in fields(ImageRecord))


@dataclass(frozen=True)
class Dataset:
    """Labelled, split and hashed images under one root folder."""

    root: Path
    records: tuple[ImageRecord, ...]
    """Sorted by split (train, validation, test) and path."""
    classes: tuple[str, ...]
    """Sorted names; a class's position is its index in the network's output."""
    source: str
    """What the user named, for people to read."""
    left_out: tuple[tuple[str, int], ...] = ()
    """Reason and number of files that the source held and the data set does not."""
    shards: str = ""
    """URI of a published data set that holds these images; empty: they lie at `root` only."""
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over path, label, split and content of every image.

        Where the files lie does not count: the same content has the same fingerprint.
        """
        digest = hashlib.sha256()
        for record in self.records:
            digest.update(
                f"{record.path}\0{record.label}\0{record.split}\0{record.sha256}\n".encode()
            )
        return digest.hexdigest()

    def split(self, name: Split) -> tuple[ImageRecord, ...]:
        """The records of one split, in manifest order."""
        return tuple(record for record in self.records if record.split == name)

    def file(self, record: ImageRecord) -> Path:
        """Where an image lies."""
        return self.root / record.path

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split and class, every class named in each split."""
        counted = Counter((record.split, record.label) for record in self.records)
        return {split: {name: counted[split, name] for name in self.classes} for split in SPLITS}

    def without(self, paths: Iterable[str], *, reason: str) -> "Dataset":
        """A data set that lacks the images at `paths`, with the reason counted."""
        unwanted = set(paths)
        kept = tuple(record for record in self.records if record.path not in unwanted)
        removed = len(self.records) - len(kept)
        if not removed:
            return self
        gone = [record.path for record in self.records if record.path in unwanted]
        examples = {**self.provenance.examples, reason: tuple(gone[:_EXAMPLES])}
        return replace(
            self,
            records=kept,
            left_out=(*self.left_out, (reason, removed)),
            provenance=replace(self.provenance, examples=examples),
        )

    def to_json(self) -> str:
        """The manifest, as a file can hold it, with a digest of all that it says."""
        content = json.dumps(
            {
                "schema_version": 1,
                "root": str(self.root),
                "source": self.source,
                "fingerprint": self.fingerprint,
                "classes": self.classes,
                "left_out": self.left_out,
                "shards": self.shards,
                "provenance": asdict(self.provenance),
                "records": [
                    {
                        name: value
                        for name in _RECORD_FIELDS
                        if (value := getattr(record, name)) or name != "group"
                    }
                    for record in self.records
                ],
            }
        )
        return f'{content[:-1]}, "digest": "{_digest(content)}"}}'

    @classmethod
    def from_json(cls, text: str) -> "Dataset":
        """The data set of a manifest written by `to_json`.

        Raises:
            ValueError: it is not what was written. The fingerprint alone does not tell: the
                order of the classes, sizes and counts are no part of it.
        """
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"the manifest of the data set is a {type(content).__name__}")
        digest = content.pop("digest", None)  # earlier versions wrote none
        if digest is not None and digest != _digest(json.dumps(content)):
            raise ValueError("the manifest of the data set is not what was written")
        provenance = content.get("provenance", {})
        return cls(
            root=Path(content["root"]),
            records=tuple(ImageRecord(**record) for record in content["records"]),
            classes=tuple(content["classes"]),
            source=content["source"],
            left_out=tuple((reason, count) for reason, count in content["left_out"]),
            shards=content.get("shards", ""),
            provenance=Provenance(
                reading=provenance.get("reading", ""),
                examples={k: tuple(v) for k, v in provenance.get("examples", {}).items()},
                lost=provenance.get("lost", {}),
            ),
        )


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def make_dataset(
    records: Sequence[ImageRecord],
    *,
    root: Path,
    source: str,
    left_out: Iterable[tuple[str, int]] = (),
    provenance: Provenance | None = None,
) -> Dataset:
    """Make a data set: records sorted by split and path, classes those that occur, by name.

    Args:
        records: in any order.
        root: folder that their paths are relative to.
        source: what the user named, without secrets, for people to read.
        left_out: reason and number of files of the source that are not in `records`.
        provenance: how the source was understood; None: nothing is known of it.
    """
    order = {split: position for position, split in enumerate(SPLITS)}
    return Dataset(
        root=root,
        records=tuple(sorted(records, key=lambda record: (order[record.split], record.path))),
        classes=tuple(sorted({record.label for record in records})),
        source=source,
        left_out=tuple(left_out),
        provenance=provenance or Provenance(),
    )
