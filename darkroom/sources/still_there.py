"""Whether the files of a data set are still those that were hashed.

A data set outlives the run that made it; its files may be tidied away, or change, meanwhile.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from darkroom.dataset import Dataset, Split
from darkroom.errors import UserError
from darkroom.sources.hashing import HashIndex, hash_files


def difference(dataset: Dataset, *, store: Path) -> str:
    """What is no longer as the data set says, in words; empty where all is.

    Files that have not changed since their hashes were remembered are not read.

    Args:
        store: folder that remembers the hashes.
    """
    paths = [os.path.abspath(dataset.file(record)) for record in dataset.records]
    there = [os.path.isfile(path) for path in paths]
    if not all(there):
        missing = [
            one.path for one, is_there in zip(dataset.records, there, strict=True) if not is_there
        ]
        return f"{_some(missing, of=dataset)} gone"
    with HashIndex.in_store(store) as index:
        hashes = hash_files(paths, index=index)
    changed = [
        record.path
        for record, path in zip(dataset.records, paths, strict=True)
        if hashes[path] != record.sha256
    ]
    return f"{_some(changed, of=dataset)} changed" if changed else ""


def check_unchanged(dataset: Dataset, *, splits: tuple[Split, ...], store: Path) -> None:
    """Compare the images of some splits with what was ingested, before they are measured with.

    Those of a published data set were compared when they were fetched.

    Raises:
        UserError: one has changed, or is gone.
    """
    if dataset.shards:
        return
    records = tuple(record for split in splits for record in dataset.split(split))
    if found := difference(replace(dataset, records=records), store=store):
        raise UserError(
            f"{found} since it was ingested: run the same command again, to have the images "
            "ingested as they are now"
        )


def discard_copy(dataset: Dataset, *, store: Path) -> None:
    """Remove what the store holds of a source, so that it is fetched and unpacked anew.

    What lies outside of the store is the user's, and stays.
    """
    root, store = dataset.root.resolve(), store.resolve()
    if root.is_relative_to(store) and root != store:
        parts = root.relative_to(store).parts
        # unpacked/<digest>/…, published/<fingerprint>/…; digits-<version> alone.
        shutil.rmtree(store.joinpath(*parts[: 1 if len(parts) == 1 else 2]), ignore_errors=True)


def _some(paths: list[str], *, of: Dataset) -> str:
    first = f"{paths[0]!r} is" if len(paths) == 1 else f"{len(paths):,} images are"
    return f"of its {len(of.records):,} images in {str(of.root)!r}, {first}"
