"""What lies under an S3 address: listed, checked and versioned before it is fetched."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from darkroom.base.errors import UserError
from darkroom.data.archives import START_BYTES, is_archive_start
from darkroom.data.listing import (
    HIDDEN,
    FileEntry,
    Listing,
    inner_path,
    is_hidden,
    too_many_files,
    unsafe_reason,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

MARK = "object that marks a folder, by the folder's own name"

_SLASHES = re.compile("/{2,}")
_PROBLEMS_SHOWN = 10
_NEIGHBOURS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class S3Address:
    """`s3://bucket/key`, taken apart."""

    bucket: str
    key: str
    """A key, or a prefix; without a slash at its end."""
    is_folder: bool = False
    """Whether a slash at the end says that it is a prefix, and not one object."""

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Take a URI apart.

        Raises:
            UserError: it names no bucket.
        """
        bucket, _, key = uri.partition("://")[2].partition("/")
        if not bucket:
            raise UserError(f"{uri!r} names no bucket. Write s3://bucket/prefix.")
        return cls(bucket, key.rstrip("/"), is_folder=key.endswith("/"))

    @property
    def prefix(self) -> str:
        """What the keys below start with."""
        return f"{self.key}/" if self.key else ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class S3Object:
    """One object, as a listing shows it."""

    key: str
    path: str
    """Where it goes, relative to the folder that is fetched."""
    size: int
    """Bytes."""
    etag: str
    """With S3's quotation marks."""


@dataclass(frozen=True)
class S3Listing:
    """The objects of an address that are worth fetching."""

    address: S3Address
    objects: tuple[S3Object, ...]
    """Sorted by key."""
    is_archive: bool
    """The address is that of one object, not of a folder."""
    left_out: Counter[str]

    @property
    def size(self) -> int:
        """Bytes of all objects together."""
        return sum(item.size for item in self.objects)

    @property
    def version(self) -> str:
        """A digest over keys, ETags and sizes; the bucket's name does not count."""
        digest = hashlib.sha256()
        for item in self.objects:
            digest.update(f"{item.path}\0{item.etag}\0{item.size}\n".encode())
        return digest.hexdigest()

    def listing(self) -> Listing:
        """The objects as files of a folder."""
        files = (FileEntry(item.path, item.size) for item in self.objects)
        return Listing(tuple(sorted(files, key=lambda file: file.path)), Counter(self.left_out))


def list_address(
    client: "S3Client", address: S3Address, *, maximum_bytes: int, maximum_files: int
) -> S3Listing:
    """What lies at an address: one object of that very key, or else all below it.

    Hidden objects and the empty ones that stand for folders are passed over; so is an object
    of the very key where others lie below it, which consoles and Hadoop leave as a mark. Slashes
    that follow each other count as one.

    Raises:
        UserError: nothing is there, more than the limits, an archive and a folder of one name, or
            keys that are no safe paths.
    """
    archive = None if address.is_folder else _object_at(client, address)
    below, left_out = _objects_below(client, address, maximum_files=maximum_files)
    if archive is not None and below:
        if _is_archive(client, address):
            raise UserError(
                f"{str(address)!r} is an archive, and a folder of {len(below):,} objects. Write "
                f"'{address}/' for the folder, or give the archive another name."
            )
        left_out[MARK] += 1
        archive = None
    found = below if archive is None else (archive,)
    if not found:
        raise UserError(_nothing_there(client, address))
    result = S3Listing(address, found, is_archive=archive is not None, left_out=left_out)
    if result.size > maximum_bytes:
        raise UserError(
            f"{str(address)!r} holds {result.size:,} bytes, more than "
            f"data.maximum_archive_bytes ({maximum_bytes:,}). If that is meant, raise it."
        )
    return result


def _is_archive(client: "S3Client", address: S3Address) -> bool:
    """Whether an object is an archive, by its first bytes."""
    size = client.head_object(Bucket=address.bucket, Key=address.key)["ContentLength"]
    if not size:
        return False
    answer = client.get_object(
        Bucket=address.bucket, Key=address.key, Range=f"bytes=0-{START_BYTES - 1}"
    )
    return is_archive_start(answer["Body"].read())


def list_objects(client: "S3Client", address: S3Address) -> "Iterator[ObjectTypeDef]":
    """All objects below an address, page by page."""
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=address.bucket, Prefix=address.prefix
    )
    for page in pages:
        yield from page.get("Contents", ())


def _object_at(client: "S3Client", address: S3Address) -> S3Object | None:
    """The object whose key is the address: listings are sorted, so it would come first."""
    if not address.key:
        return None
    page = client.list_objects_v2(Bucket=address.bucket, Prefix=address.key, MaxKeys=1)
    for item in page.get("Contents", ()):
        if item["Key"] == address.key:
            name = inner_path(address.key.rpartition("/")[2])
            return S3Object(item["Key"], name, item["Size"], item["ETag"])
    return None


def _objects_below(
    client: "S3Client", address: S3Address, *, maximum_files: int
) -> tuple[tuple[S3Object, ...], Counter[str]]:
    left_out: Counter[str] = Counter()
    found: list[S3Object] = []
    unsafe: list[str] = []
    for item in list_objects(client, address):
        name = item["Key"][len(address.prefix) :]
        name = _SLASHES.sub("/", name).removeprefix("/")  # as joined by programs with one too many
        if not name or name.endswith("/"):
            continue
        if reason := unsafe_reason(name):
            unsafe.append(f"{item['Key']!r} {reason}")
        elif is_hidden(path := inner_path(name)):
            left_out[HIDDEN] += 1
        else:
            found.append(S3Object(item["Key"], path, item["Size"], item["ETag"]))
        if len(found) > maximum_files:
            raise UserError(too_many_files(str(address), maximum_files=maximum_files))
    _check_paths(found, unsafe=unsafe, address=address)
    return tuple(found), left_out


def _check_paths(found: list[S3Object], *, unsafe: list[str], address: S3Address) -> None:
    """Refuse keys that would be written elsewhere, or over one another."""
    counts = Counter(item.path for item in found)
    folders = {parent for path in counts for parent in _parents(path)}
    clashes = [
        f"{item.key!r} needs the place of another object"
        for item in found
        if counts[item.path] > 1 or item.path in folders
    ]
    if problems := unsafe + clashes:
        shown = "; ".join(problems[:_PROBLEMS_SHOWN])
        raise UserError(
            f"{str(address)!r} has keys that cannot be files of a folder: {shown}. "
            "Nothing was fetched. Rename these objects, or name a narrower prefix."
        )


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _nothing_there(client: "S3Client", address: S3Address) -> str:
    parent = address.key.rpartition("/")[0]
    prefix = f"{parent}/" if parent else ""
    page = client.list_objects_v2(
        Bucket=address.bucket, Prefix=prefix, Delimiter="/", MaxKeys=_NEIGHBOURS_SHOWN
    )
    names = [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
    names += [entry["Key"] for entry in page.get("Contents", ())]
    place = f"'s3://{address.bucket}/{prefix}'"
    there = f"In {place} there are {', '.join(map(repr, names))}" if names else f"{place} is empty"
    return (
        f"{str(address)!r}: there is nothing in bucket {address.bucket!r} under the prefix "
        f"{address.prefix!r}. {there}. Check the prefix."
    )
