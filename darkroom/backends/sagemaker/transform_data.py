"""The images of a batch transform job on S3, and the answers that it leaves there."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from darkroom.backends.batch import BatchPrediction
from darkroom.backends.s3_listing import S3Address, list_objects
from darkroom.backends.sagemaker.aws_errors import aws_errors_explained
from darkroom.backends.sagemaker.clients import Clients
from darkroom.errors import UserError
from darkroom.images import ImageError, Preprocessing, as_requested, open_image
from darkroom.progress import SILENT, Progress
from darkroom.sources.concurrency import map_concurrently
from darkroom.sources.image_folder import is_image_name

_THREADS = 16
_MEGABYTE = 2**20
_DIGITS = 16
_SUFFIX = ".out"
"""What SageMaker appends to the name of an image for its answer."""


@dataclass(frozen=True)
class BatchImage:
    """One image of a batch."""

    source: str
    """As the user named it."""
    name: str = ""
    """Of its object, below the prefix of the batch."""
    version: str = ""
    """Changes with the content."""
    error: str = ""
    """Why it is not sent to the model."""


def inspect_files(
    images: Sequence[Path], *, preprocessing: Preprocessing, largest_megabytes: int
) -> list[BatchImage]:
    """Name files by their content; what `serve` could not read is found here, for nothing."""
    inspect = partial(_inspect, preprocessing=preprocessing, largest_megabytes=largest_megabytes)
    found = dict(map_concurrently(inspect, enumerate(images), threads=_THREADS))
    return [found[index] for index in range(len(images))]


def list_images(uri: str, *, clients: Clients) -> list[BatchImage]:
    """The images below a prefix, by key; objects with other extensions are left out.

    Raises:
        UserError: there are none.
    """
    address = S3Address.parse(uri)
    with aws_errors_explained(uri):
        found = [
            BatchImage(
                source=f"s3://{address.bucket}/{item['Key']}",
                name=item["Key"][len(address.prefix) :],
                version=item["ETag"],
            )
            for item in list_objects(clients.s3, address)
            if is_image_name(item["Key"])
        ]
    if not found:
        raise UserError(f"{uri!r} holds no images. Name a prefix that images lie below.")
    return found


def upload_images(
    batch: Sequence[BatchImage],
    *,
    prefix: str,
    preprocessing: Preprocessing,
    largest_megabytes: int,
    extra: Mapping[str, object],
    clients: Clients,
    progress: Progress = SILENT,
) -> None:
    """Send the files of a batch, those alone that are not there yet.

    Args:
        preprocessing: and
        largest_megabytes: with which they were inspected.
        prefix: s3:// prefix of the batch.
        extra: further arguments of PutObject.
    """
    address = S3Address.parse(prefix)
    with aws_errors_explained(prefix):
        there = {item["Key"] for item in list_objects(clients.s3, address)}
        files = {address.prefix + image.name: image.source for image in batch if not image.error}
        missing = sorted(files.keys() - there)

        def send(key: str) -> None:
            body = _sent(
                Path(files[key]), preprocessing=preprocessing, largest_megabytes=largest_megabytes
            )
            clients.s3.put_object(Bucket=address.bucket, Key=key, Body=body, **dict(extra))  # type: ignore[arg-type]

        with progress.task(f"Uploading to {prefix}", total=len(missing)) as task:
            for _ in map_concurrently(send, missing, threads=_THREADS):
                task.advance()


def has_answers(output: str, *, clients: Clients) -> bool:
    """Whether a job has answered anything."""
    with aws_errors_explained(output):
        return any(list_objects(clients.s3, S3Address.parse(output)))


def read_answers(
    batch: Sequence[BatchImage], *, output: str, missing: str, clients: Clients
) -> list[BatchPrediction]:
    """A row for each image of a batch, in its order.

    Args:
        output: s3:// prefix that the job wrote to.
        missing: the error of an image that the job gave no answer for.
    """
    address = S3Address.parse(output)
    with aws_errors_explained(output):
        keys = [item["Key"] for item in list_objects(clients.s3, address)]
        answers = {key[len(address.prefix) :].removesuffix(_SUFFIX): key for key in keys}
        found = _found(batch, answers=answers)
        read = partial(_read, clients=clients, bucket=address.bucket)
        contents = dict(map_concurrently(read, sorted(set(found.values())), threads=_THREADS))
    return [
        _row(image, content=contents.get(found.get(image.name, "")), missing=missing)
        for image in batch
    ]


def _found(batch: Iterable[BatchImage], *, answers: Mapping[str, str]) -> dict[str, str]:
    """Name of an image to the key of its answer.

    AWS documents that subfolders are kept, and shows an example where one is not: where the
    name itself has no answer, the last part of it does, if it stands for one image alone.
    """
    names = {image.name for image in batch if not image.error}
    last_parts = Counter(name.rpartition("/")[2] for name in names)
    by_last_part = {answer.rpartition("/")[2]: key for answer, key in answers.items()}
    found = {}
    for name in names:
        last = name.rpartition("/")[2]
        if key := answers.get(name) or (last_parts[last] == 1 and by_last_part.get(last)):
            found[name] = key
    return found


def _sent(path: Path, *, preprocessing: Preprocessing, largest_megabytes: int) -> bytes:
    """What is sent of an image file: in another form where the server would not open it."""
    largest = largest_megabytes * _MEGABYTE
    return as_requested(path.read_bytes(), preprocessing, largest_bytes=largest)


def _inspect(
    item: tuple[int, Path], *, preprocessing: Preprocessing, largest_megabytes: int
) -> tuple[int, BatchImage]:
    index, path = item
    try:
        content = _sent(path, preprocessing=preprocessing, largest_megabytes=largest_megabytes)
        with open_image(content) as (image, _):
            extension = (image.format or "image").lower()
    except (ImageError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return index, BatchImage(str(path), error=str(reason))
    digest = hashlib.sha256(content).hexdigest()
    return index, BatchImage(str(path), name=f"{digest[:_DIGITS]}.{extension}", version=digest)


def _read(key: str, *, clients: Clients, bucket: str) -> tuple[str, bytes]:
    return key, clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def _row(image: BatchImage, *, content: bytes | None, missing: str) -> BatchPrediction:
    if image.error or content is None:
        return BatchPrediction(source=image.source, error=image.error or missing)
    try:
        answer = json.loads(content)
        return BatchPrediction.model_validate(
            {key: answer[key] for key in ("class", "probability", "top_k")}
            | {"source": image.source, "engine": answer.get("engine")}
        )
    except (ValueError, KeyError, TypeError, ValidationError):
        said = content[:200].decode(errors="replace")
        return BatchPrediction(source=image.source, error=f"not an answer of `serve`: {said!r}")
