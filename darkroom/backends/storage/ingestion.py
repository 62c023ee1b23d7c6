"""Any source to a data set: what the component ingest_images calls."""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.base.errors import UserError
from darkroom.base.files import full_disk_explained, sha256_of, workspace
from darkroom.base.progress import SILENT, Progress
from darkroom.config import DataConfig
from darkroom.data.assembly import assemble, preview, understand
from darkroom.data.dataset import Dataset
from darkroom.data.hashes import HashIndex, hash_file, hash_files
from darkroom.data.layout import FileReader
from darkroom.data.listing import Listing
from darkroom.data.local import (
    LocalFolder,
    check_archive,
    digits_version,
    fetch,
    list_path,
    open_path,
    read_in_archive,
)
from darkroom.data.source_names import Source, parse_source, public_url

_DIGITS_BYTES = 1797 * 150
"""Of the PNG files that the digits are written to."""

if TYPE_CHECKING:
    from darkroom.backends.storage.listing import S3Listing


def ingest(
    source: str, *, config: DataConfig, seed: int, store: Path, progress: Progress = SILENT
) -> Dataset:
    """Bring a source into a labelled, split and hashed data set.

    A local folder is used where it lies. What has to be fetched, unpacked or written goes
    to the store, whole or not at all, and the same content only once.

    Args:
        source: folder, archive, http(s) URL of one, s3://bucket/prefix or archive or
            published data set there, polyvore:FOLDER, or 'digits'.
        seed: of the splits that are made where the source has none; a published data set
            has its own.
        store: folder for all that is written.

    Raises:
        UserError: the source is missing, unreadable, refused, or cannot be trained on.
        DarkroomError: the disk is full, or a server keeps failing.
    """
    parsed = parse_source(source)
    with full_disk_explained(store):
        if _is_published(parsed):
            from darkroom.backends.storage.datasets import fetch_published

            return fetch_published(parsed.location, store=store, progress=progress)
        folder = bring(parsed, config=config, store=store, progress=progress)
        return assemble(
            folder, source=parsed, config=config, seed=seed, store=store, progress=progress
        )


def source_version(
    source: str,
    *,
    config: DataConfig,
    store: Path | None = None,
    fresh: bool = False,
    listing: Listing | None = None,
    progress: Progress = SILENT,
) -> str:
    """A token that changes when the content of a source does: the key of caches.

    Folders: path and SHA-256 of each file; archives: SHA-256; both remembered, so that a file is
    read once. http(s): ETag, Last-Modified and length, and the constant 'unversioned' from a
    server that gives none of them, so that a change there goes unnoticed; S3: key, ETag and size
    of each object; digits: scikit-learn's version.

    Args:
        store: where hashes are remembered; None: the workspace's.
        fresh: read every file, whatever is remembered.
        listing: what a folder holds, as it was found, and understood, a moment ago.

    Raises:
        UserError: the source is missing, empty, unreadable, or (folders and S3) cannot be
            trained on.
    """
    version = _version(
        source, config=config, store=store, fresh=fresh, listing=listing, progress=progress
    )
    labels = [Path(name).expanduser() for name in config.label_files]
    told = [sha256_of(path) for path in labels if path.is_file()]
    return hashlib.sha256(" ".join([version, *told]).encode()).hexdigest() if told else version


def _version(
    source: str,
    *,
    config: DataConfig,
    store: Path | None,
    fresh: bool,
    listing: Listing | None,
    progress: Progress,
) -> str:
    parsed = parse_source(source)
    if parsed.kind == "digits":
        return f"digits-{digits_version()}"
    if parsed.kind == "http":
        from darkroom.data.download import look_up

        return f"{public_url(parsed.location)} {look_up(parsed.location).version}"
    if parsed.kind == "s3":
        return _look_up_s3(parsed, config=config).version
    path = Path(parsed.location).expanduser()
    if not path.is_dir():
        check_archive(path)
    elif listing is None:
        listing = list_path(path, config=config)
        understand(listing, source=parsed, config=config, root=path)
    store = store or workspace() / "data"
    with full_disk_explained(store), HashIndex.in_store(store, fresh=fresh) as index:
        if listing is None:
            return hash_file(path, index=index, progress=progress)
        return _version_of_files(path, listing=listing, index=index, progress=progress)


def _version_of_files(root: Path, *, listing: Listing, index: HashIndex, progress: Progress) -> str:
    places = {file.path: os.path.abspath(root / file.path) for file in listing.files}
    hashes = hash_files(list(places.values()), index=index, progress=progress)
    passed_over = [sorted(listing.left_out.items()), *listing.empty_folders]
    digest = hashlib.sha256(repr(passed_over).encode())
    for path, place in places.items():
        digest.update(f"{path}\0{hashes[place]}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class SourceDescription:
    """What can be known of a source without fetching it."""

    line: str
    """For people to read."""
    images: int | None = None
    """None: unknown before it is fetched."""
    size: int | None = None
    """Bytes of the images, or of the archive that holds them; None: unknown."""
    dataset: Dataset | None = None
    """What would be trained on, without the images' hashes; None: unknown before the fetch."""


def describe_source(source: str, *, config: DataConfig, seed: int = 0) -> SourceDescription:
    """Check what can be known of a source without fetching it.

    Archives are read through, not unpacked; of http(s) only the first bytes are asked for.

    Args:
        seed: of the splits that a run would make.

    Raises:
        UserError: as `ingest` would, as far as it can be foreseen.
    """
    parsed = parse_source(source)
    if parsed.kind == "digits":
        return SourceDescription(
            "digits: 1,797 images in 10 classes, from scikit-learn", images=1797, size=_DIGITS_BYTES
        )
    if parsed.kind == "http":
        return _describe_http(parsed, config=config)
    if parsed.kind == "s3":
        return _describe_s3(parsed, config=config, seed=seed)
    path = Path(parsed.location).expanduser()
    listing = list_path(path, config=config)
    is_folder = path.is_dir()
    return _describe_listing(
        listing,
        source=parsed,
        config=config,
        seed=seed,
        root=path if is_folder else None,
        read=None if is_folder else read_in_archive(path, config=config),
    )


def _describe_listing(
    listing: Listing,
    *,
    source: Source,
    config: DataConfig,
    seed: int,
    root: Path | None = None,
    read: FileReader | None = None,
) -> SourceDescription:
    collection = understand(listing, source=source, config=config, root=root, read=read)
    return SourceDescription(
        f"{source.public_name}: {collection.describe()}",
        images=len(collection.files),
        size=sum(file.size for file in collection.files),
        dataset=preview(collection, source=source, config=config, seed=seed),
    )


def _describe_http(source: Source, *, config: DataConfig) -> SourceDescription:
    from darkroom.data.download import look_up_archive

    found = look_up_archive(source.location)
    if found.size is None:
        return SourceDescription(f"{source.public_name}: reachable, of unknown size")
    if found.size > config.maximum_archive_bytes:
        raise UserError(
            f"{source.public_name!r} has {found.size:,} bytes, more than "
            f"data.maximum_archive_bytes ({config.maximum_archive_bytes:,})."
        )
    return SourceDescription(
        f"{source.public_name}: reachable, {found.size / 1e6:,.1f} MB", size=found.size
    )


def _describe_s3(source: Source, *, config: DataConfig, seed: int) -> SourceDescription:
    if _is_published(source):
        return _describe_published(source)
    found = _look_up_s3(source, config=config)
    if found.is_archive or source.polyvore:
        return SourceDescription(
            f"{source.public_name}: {len(found.objects):,} objects, {found.size / 1e6:,.1f} MB",
            size=found.size,
        )
    keys = {item.path: item.key for item in found.objects}

    def read(path: str) -> bytes:
        from darkroom.backends.storage.s3 import read_object

        return read_object(found.address.bucket, key=keys[path])

    return _describe_listing(found.listing(), source=source, config=config, seed=seed, read=read)


def _describe_published(source: Source) -> SourceDescription:
    from darkroom.backends.storage.datasets import read_published

    dataset = read_published(source.location)
    return SourceDescription(
        f"{source.public_name}: a published data set of {len(dataset.records):,} images in "
        f"{len(dataset.classes):,} classes",
        images=len(dataset.records),
        size=sum(record.size for record in dataset.records),
        dataset=dataset,
    )


def _is_published(source: Source) -> bool:
    if source.kind != "s3" or source.polyvore:
        return False
    _require_boto3()
    from darkroom.backends.storage.datasets import is_published

    return is_published(source.location)


def _look_up_s3(source: Source, *, config: DataConfig) -> "S3Listing":
    _require_boto3()
    from darkroom.backends.storage import s3 as storage

    return storage.look_up(
        source.location,
        maximum_bytes=config.maximum_archive_bytes,
        maximum_files=config.maximum_files,
    )


def bring(source: Source, *, config: DataConfig, store: Path, progress: Progress) -> LocalFolder:
    """A source's files in a local folder, fetched and unpacked where that is needed.

    Raises:
        UserError: the source is missing, unreadable, or refused.
        DarkroomError: a server keeps failing.
    """
    if source.kind != "s3":
        return fetch(source, config=config, store=store, progress=progress)
    _require_boto3()
    from darkroom.backends.storage import s3 as storage

    path = storage.fetch(
        source.location,
        store=store,
        maximum_bytes=config.maximum_archive_bytes,
        maximum_files=config.maximum_files,
        progress=progress,
    )
    return open_path(path, config=config, store=store, progress=progress)


def _require_boto3() -> None:
    if importlib.util.find_spec("boto3") is None:
        raise UserError("s3:// needs boto3, which is not installed: pip install 'darkroom[aws]'.")
