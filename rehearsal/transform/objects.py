"""Which objects a transform job reads, and where the result of each goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.emulator.state import State
from rehearsal.jobs import storage
from rehearsal.s3_uris import split_uri


@dataclass(frozen=True)
class InputObject:
    """One object to transform."""

    bucket: str
    key: str
    relative: str
    """Its path below the input, which its result keeps."""

    @property
    def uri(self) -> str:
        """Where it lies."""
        return f"s3://{self.bucket}/{self.key}"

    def output(self, path: str) -> str:
        """Where its result goes, below an S3OutputPath."""
        return f"{path.rstrip('/')}/{self.relative}.out"


def input_objects(source: Mapping[str, Any], *, state: State) -> list[InputObject]:
    """All objects of an S3DataSource, a prefix or a manifest, in order.

    Raises botocore's ClientError; ValueError where a manifest is none.
    """
    if source["S3DataType"] == "ManifestFile":
        found = storage.of_manifest(source["S3Uri"], state=state)
        return [InputObject(each.bucket, each.key, name) for each, name in found]
    _, prefix = split_uri(source["S3Uri"])
    return [
        InputObject(each.bucket, each.key, relative_key(each.key, prefix=prefix))
        for each in storage.listed(source["S3Uri"], state=state)
        if not each.key.endswith("/")
    ]


def relative_key(key: str, *, prefix: str) -> str:
    """A key's path below a prefix; below the prefix's folder, where it is part of a name."""
    rest = key.removeprefix(prefix)
    if rest and (prefix.endswith("/") or rest.startswith("/") or not prefix):
        return rest.lstrip("/")
    return key.removeprefix(prefix.rpartition("/")[0]).lstrip("/")
