"""Data capture of a server on S3; needs s3:PutObject below the prefix, and nothing else."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from darkroom.backends.s3_errors import s3_errors_explained
from darkroom.backends.s3_listing import S3Address
from darkroom.backends.storage import s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class S3Store:
    """Objects below a prefix."""

    address: S3Address
    client: "S3Client"

    @classmethod
    def at(cls, uri: str, *, client: "S3Client | None" = None) -> Self:
        """The store at s3://bucket/prefix.

        Raises:
            UserError: no such URI, or the environment names no region.
        """
        return cls(S3Address.parse(uri), client=client or s3_client())

    def put(self, name: str, content: bytes) -> None:
        """Write an object.

        Raises:
            UserError: S3 refuses.
            DarkroomError: S3 cannot be reached.
        """
        key = f"{self.address.prefix}{name}"
        with s3_errors_explained(str(self.address)):
            self.client.put_object(Bucket=self.address.bucket, Key=key, Body=content)
