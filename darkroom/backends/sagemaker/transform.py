"""Batch transform: many images through a hosted model, answers joined to the files again."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from botocore.exceptions import ClientError
from pydantic import ValidationError

from darkroom.backends.predictions import BatchPrediction
from darkroom.backends.sagemaker.archives import encryption, publish_bundle
from darkroom.backends.sagemaker.hosting.deployment import once
from darkroom.backends.sagemaker.hosting.request import Request, model_request
from darkroom.backends.sagemaker.hosting.resources import delete_model
from darkroom.backends.sagemaker.jobs.logs import TRANSFORM_JOBS, last_lines
from darkroom.backends.sagemaker.requests import volume_key
from darkroom.backends.sagemaker.resources import Tag, tags_of, take_over
from darkroom.backends.sagemaker.retry import Pause, Retrier, interruptible, sleep, wait_for
from darkroom.backends.sagemaker.session import (
    Clients,
    SageMakerContext,
    aws_errors_explained,
    is_missing,
)
from darkroom.backends.storage.listing import S3Address, list_objects
from darkroom.base.concurrency import map_concurrently
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.progress import SILENT, Progress
from darkroom.base.values import digest_of
from darkroom.config.sagemaker import TransformConfig
from darkroom.data.image_folder import is_image_name
from darkroom.images import ImageError, Preprocessing, as_requested, open_image
from darkroom.models.bundle import Bundle

# --- the request ---
# Requests of batch transform jobs.

_MEGABYTES_AT_ONCE = 100
"""AWS: MaxConcurrentTransforms × MaxPayloadInMB may not be more."""
_MEGABYTES = 6
"""`serve` accepts no larger image."""
_SECONDS_TO_ANSWER = 60
_RETRIES = 2


def transform_request(
    name: str, *, model: str, images: str, output: str, site: SageMakerContext, tags: Sequence[Tag]
) -> Request:
    """CreateTransformJob: every object below a prefix is one image and one request.

    Args:
        images: s3:// prefix of the images.
        output: s3:// prefix of the answers.
    """
    config, key = site.config.transform, site.config.kms_key
    disk_key = volume_key(config.instance_type, key=key)
    return {
        "TransformJobName": name,
        "ModelName": model,
        "MaxConcurrentTransforms": config.concurrent_requests,
        "MaxPayloadInMB": largest_megabytes(config),
        "ModelClientConfig": {
            "InvocationsTimeoutInSeconds": _SECONDS_TO_ANSWER,
            "InvocationsMaxRetries": _RETRIES,
        },
        "BatchStrategy": "SingleRecord",
        "TransformInput": _input(images),
        "TransformOutput": {
            "S3OutputPath": output,
            "Accept": "application/json",
            "AssembleWith": "None",
            **({"KmsKeyId": key} if key else {}),
        },
        "TransformResources": {
            "InstanceType": config.instance_type,
            "InstanceCount": config.instance_count,
            **({"VolumeKmsKeyId": disk_key} if disk_key else {}),
        },
        "Tags": list(tags),
    }


def _input(images: str) -> Request:
    return {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": images}},
        "ContentType": "application/x-image",
        "CompressionType": "None",
        "SplitType": "None",
    }


def largest_megabytes(config: TransformConfig) -> int:
    """Size of the largest image, in MiB: less where many are answered at once."""
    return max(1, min(_MEGABYTES, _MEGABYTES_AT_ONCE // config.concurrent_requests))


# --- images and answers on S3 ---
# The images of a batch transform job on S3, and the answers that it leaves there.

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


# --- the job ---

T = TypeVar("T")

_BAD_IMAGES = "ClientError"
"""How the reason of a job begins that may have failed over some of its images alone."""


def transform(
    images: Sequence[Path] | str,
    *,
    bundle: Bundle,
    site: SageMakerContext,
    clients: Clients,
    progress: Progress = SILENT,
    pause: Pause = sleep,
) -> list[BatchPrediction]:
    """Classify files, or the images below an S3 prefix, in a batch transform job.

    The same call after an interruption follows the job that runs, or reads what it left.

    Args:
        images: files, or an s3:// prefix.

    Returns:
        A row for each image, in the order given (of a prefix: by key); one that cannot be
        read, or is larger than AWS passes on, is a row with its error.

    Raises:
        DarkroomError: the job failed over more than single images, or AWS cannot be asked.
        UserError: AWS refuses, or the prefix holds no images.
        JobInterrupted: the user does not want to wait; the job goes on.
    """
    largest = largest_megabytes(site.config.transform)
    preprocessing = bundle.metadata.preprocessing
    if isinstance(images, str):
        batch = list_images(images, clients=clients)
    else:
        batch = inspect_files(images, preprocessing=preprocessing, largest_megabytes=largest)
    if all(image.error for image in batch):
        return [BatchPrediction(source=image.source, error=image.error) for image in batch]
    job = _Job(_identity(batch, bundle=bundle, site=site), site=site, clients=clients, pause=pause)
    prefix = images if isinstance(images, str) else job.place("input")
    if not isinstance(images, str):
        extra = encryption(site)
        upload_images(
            batch,
            prefix=prefix,
            preprocessing=preprocessing,
            largest_megabytes=largest,
            extra=extra,
            clients=clients,
            progress=progress,
        )
    done = job.run(bundle, prefix=prefix, progress=progress)
    return read_answers(batch, output=done.output, missing=done.missing, clients=clients)


@dataclass(frozen=True)
class _Done:
    output: str
    """s3:// prefix of the answers."""
    missing: str
    """Why an image may have none."""


@dataclass(frozen=True)
class _State:
    status: str
    reason: str
    arn: str

    @property
    def is_over(self) -> bool:
        return self.status in ("Completed", "Failed", "Stopped")


@dataclass(frozen=True)
class _Job:
    """The transform jobs of one batch, of which one has to succeed."""

    identity: str
    site: SageMakerContext
    clients: Clients
    pause: Pause

    def run(self, bundle: Bundle, *, prefix: str, progress: Progress) -> _Done:
        """Find the job that does it, or start it, and follow it."""
        for attempt in count(1):
            name = f"{self.identity}-{attempt}"
            state = self._ask(name, partial(_describe, name))
            if state is None:
                archive = publish_bundle(bundle, site=self.site, clients=self.clients)
                self._start(name, archive=archive, prefix=prefix)
            elif state.is_over and not self._is_usable(name, state=state):
                continue  # of an earlier run, which was told
            elif not state.is_over:
                self._ask(name, partial(_take_over, state.arn, site=self.site))
            return self._follow(name, progress=progress)
        raise AssertionError("count has no end")

    def place(self, *parts: str) -> str:
        """Where the batch lies on S3."""
        return self.site.uri("transform", self.identity, *parts)

    def _start(self, name: str, *, archive: str, prefix: str) -> None:
        tags = tags_of(self.site, identity=self.identity)
        model = model_request(self.identity, archive=archive, site=self.site, tags=tags)
        request = transform_request(
            name,
            model=self.identity,
            images=f"{prefix.rstrip('/')}/",
            output=self._output(name),
            site=self.site,
            tags=tags,
        )
        self._ask(name, lambda c: once(lambda: c.sagemaker.create_model(**model)))
        self._ask(
            name,
            lambda c: once(lambda: c.sagemaker.create_transform_job(**request)),
            may_appear=True,  # the model, which AWS may not know everywhere yet
        )

    def _follow(self, name: str, *, progress: Progress) -> _Done:
        with progress.task(f"Transform job {name}") as task, interruptible("transform", name):
            state = wait_for(
                partial(_describe, name),
                until=lambda state: state is None or state.is_over,
                clients=self.clients,
                what=f"transform job {name!r}",
                on_look=lambda state: task.advance(0, detail=state.status if state else ""),
                pause=self.pause,
            )
        delete_model(self.identity, clients=self.clients)
        if state is None or not self._is_usable(name, state=state):
            raise self._failure(name, state=state)
        reason = state.reason or "see the log of the job"
        return _Done(self._output(name), missing=f"no answer of the transform job: {reason}")

    def _is_usable(self, name: str, *, state: _State) -> bool:
        """AWS marks a job as failed if a single image was refused; the others have answers."""
        if state.status == "Completed":
            return True
        output = self._output(name)
        return state.reason.startswith(_BAD_IMAGES) and has_answers(output, clients=self.clients)

    def _failure(self, name: str, *, state: _State | None) -> DarkroomError:
        said = f"{state.status}: {state.reason or 'no reason given'}" if state else "it is gone"
        log = last_lines(TRANSFORM_JOBS, stream=name, clients=self.clients)
        return DarkroomError(f"transform job {name!r}: {said}\n{log}")

    def _output(self, name: str) -> str:
        return self.place("output", name.removeprefix(f"{self.identity}-"))

    def _ask(self, name: str, question: Callable[[Clients], T], *, may_appear: bool = False) -> T:
        what = f"transform job {name!r}"
        patient = Retrier(self.clients, what=what, pause=self.pause, may_appear=may_appear)
        return patient.ask(question)


def _describe(name: str, clients: Clients) -> _State | None:
    try:
        found = clients.sagemaker.describe_transform_job(TransformJobName=name)
    except ClientError as error:
        if not is_missing(error):
            raise
        return None
    return _State(
        found["TransformJobStatus"], found.get("FailureReason", ""), arn=found["TransformJobArn"]
    )


def _take_over(arn: str, clients: Clients, *, site: SageMakerContext) -> None:
    take_over(arn, site=site, clients=clients)


def _identity(batch: Sequence[BatchImage], *, bundle: Bundle, site: SageMakerContext) -> str:
    """What decides the answers: the model, its program, and the images."""
    images = sorted((image.name, image.version) for image in batch if not image.error)
    files, engine = bundle.metadata.files, bundle.metadata.compiled_for
    content = [files, *engine, site.image, site.fresh, images]
    return f"darkroom-transform-{digest_of(content)[:_DIGITS]}"
