"""How a transform job cuts an object into requests, and joins the answers again."""

from collections.abc import Iterator

_MEGABYTE = 2**20


class RecordTooLargeError(Exception):
    """One record alone exceeds MaxPayloadInMB."""


def payloads(body: bytes, *, split: str, strategy: str, maximum_megabytes: int) -> list[bytes]:
    """The requests that one object becomes.

    split: None (the object as it is) or Line; strategy: SingleRecord, or MultiRecord, as many
    lines in a request as fit. maximum_megabytes: 0 means no limit.
    Raises RecordTooLargeError.
    """
    limit = maximum_megabytes * _MEGABYTE or None
    records = body.splitlines(keepends=True) if split == "Line" else [body]
    for record in records:
        if limit is not None and len(record) > limit:
            raise RecordTooLargeError(
                f"a record of {len(record)} bytes exceeds MaxPayloadInMB={maximum_megabytes}"
            )
    if split == "None" or strategy == "SingleRecord":
        return records
    return list(_batched(records, limit=limit))


def assembled(answers: list[bytes], *, assemble_with: str) -> bytes:
    """The object that the answers of one input become; AssembleWith is None or Line."""
    if assemble_with != "Line":
        return b"".join(answers)
    return b"".join(answer if answer.endswith(b"\n") else answer + b"\n" for answer in answers)


def _batched(records: list[bytes], *, limit: int | None) -> Iterator[bytes]:
    batch = bytearray()
    for record in records:
        if batch and limit is not None and len(batch) + len(record) > limit:
            yield bytes(batch)
            batch.clear()
        batch += record
    if batch:
        yield bytes(batch)
