"""A local folder of images understood, hashed and split: the data set."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from darkroom.config import DataConfig
from darkroom.dataset import Dataset, ImageRecord, Provenance, make_dataset
from darkroom.progress import SILENT, Progress
from darkroom.sources.hashing import HashIndex, hash_files
from darkroom.sources.labelled import Collection, LabelledFile, check_trainable
from darkroom.sources.labelling import FileReader, read_labelled
from darkroom.sources.listing import LeftOut, Listing, list_folder
from darkroom.sources.local import LocalFolder
from darkroom.sources.polyvore import read_polyvore
from darkroom.sources.source_names import Source
from darkroom.sources.splitting import Candidate, assign_splits, joined


def understand(
    listing: Listing,
    *,
    source: Source,
    config: DataConfig,
    root: Path | None = None,
    read: FileReader | None = None,
) -> Collection:
    """Files with classes and given splits, and enough of them to train on.

    Args:
        root: where the files lie; the Polyvore data set cannot be understood without.
        read: the content of a file of the listing, by its path: label files are read by it.

    Raises:
        UserError: one class, no images, classes without training images, malformed JSON, folders
            or label files that can be read in two ways.
    """
    if source.polyvore and root:
        collection = read_polyvore(listing, root=root, classes=config.polyvore_classes)
    else:
        collection = read_labelled(
            listing, config=config, source=source.public_name, read=read or _reader(root)
        )
    check_trainable(collection, source=source.public_name)
    return collection


def _reader(root: Path | None) -> FileReader | None:
    return (lambda path: (root / path).read_bytes()) if root else None


def assemble(
    folder: LocalFolder,
    *,
    source: Source,
    config: DataConfig,
    seed: int,
    store: Path,
    progress: Progress = SILENT,
) -> Dataset:
    """The data set in a local folder, its images hashed and split.

    Copies of the same image in one source are never parted by a split that is made here.

    Raises:
        UserError: as `understand`, or a file cannot be read.
    """
    listing = list_folder(folder.root, maximum_files=config.maximum_files)
    collection = understand(listing, source=source, config=config, root=folder.root)
    root = folder.root / collection.folder
    hashes = _hash(collection.files, root=root, store=store, progress=progress)
    return _dataset(
        collection.leaving_out(folder.left_out),
        root=root,
        source=source,
        hashes=hashes,
        config=config,
        seed=seed,
    )


def preview(collection: Collection, *, source: Source, config: DataConfig, seed: int) -> Dataset:
    """The data set that `assemble` would make, as far as it is known without the content.

    No image has a hash, so copies of one image may be in other splits than they will be.
    """
    root = Path(collection.folder)
    return _dataset(collection, root=root, source=source, hashes={}, config=config, seed=seed)


def _dataset(
    collection: Collection,
    *,
    root: Path,
    source: Source,
    hashes: Mapping[str, str],
    config: DataConfig,
    seed: int,
) -> Dataset:
    examples = LeftOut(collection.left_out).examples
    return make_dataset(
        _records(collection.files, hashes=hashes, config=config, seed=seed),
        root=root,
        source=source.public_name,
        left_out=sorted(collection.left_out.items()),
        provenance=Provenance(
            reading=collection.reading,
            examples={reason: tuple(paths) for reason, paths in sorted(examples.items())},
            lost=dict(collection.lost),
        ),
    )


def _hash(
    files: Sequence[LabelledFile], *, root: Path, store: Path, progress: Progress
) -> dict[str, str]:
    """SHA-256 by path relative to the root."""
    absolute = {file.path: os.path.abspath(root / file.path) for file in files}
    with HashIndex.in_store(store) as index:
        hashes = hash_files(list(absolute.values()), index=index, progress=progress)
    return {path: hashes[place] for path, place in absolute.items()}


def _records(
    files: Sequence[LabelledFile], *, hashes: Mapping[str, str], config: DataConfig, seed: int
) -> list[ImageRecord]:
    groups = joined([file.group for file in files], [hashes.get(f.path, f.path) for f in files])
    splits = assign_splits(
        [
            Candidate(file.label, file.split, group)
            for file, group in zip(files, groups, strict=True)
        ],
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
    )
    return [
        ImageRecord(
            file.path, file.label, split, file.size, hashes.get(file.path, ""), file.group or ""
        )
        for file, split in zip(files, splits, strict=True)
    ]
