"""Batch transform: many images through a hosted model, answers joined to the files again."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from botocore.exceptions import ClientError

from darkroom.backends.batch import BatchPrediction
from darkroom.backends.sagemaker.archives import encryption, publish_bundle
from darkroom.backends.sagemaker.aws_errors import is_missing
from darkroom.backends.sagemaker.clients import Clients
from darkroom.backends.sagemaker.container_log import TRANSFORM_JOBS, last_lines
from darkroom.backends.sagemaker.deployment import once
from darkroom.backends.sagemaker.following import Patient, Pause, interruptible, sleep, wait_for
from darkroom.backends.sagemaker.identity import tags_of, take_over
from darkroom.backends.sagemaker.removal import delete_model
from darkroom.backends.sagemaker.requests.hosting import model_request
from darkroom.backends.sagemaker.requests.transform import largest_megabytes, transform_request
from darkroom.backends.sagemaker.site import Site
from darkroom.backends.sagemaker.transform_data import (
    BatchImage,
    has_answers,
    inspect_files,
    list_images,
    read_answers,
    upload_images,
)
from darkroom.errors import DarkroomError
from darkroom.model.bundle import Bundle
from darkroom.progress import SILENT, Progress

T = TypeVar("T")

_DIGITS = 16
_BAD_IMAGES = "ClientError"
"""How the reason of a job begins that may have failed over some of its images alone."""


def transform(
    images: Sequence[Path] | str,
    *,
    bundle: Bundle,
    site: Site,
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
    site: Site
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
        patient = Patient(self.clients, what=what, pause=self.pause, may_appear=may_appear)
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


def _take_over(arn: str, clients: Clients, *, site: Site) -> None:
    take_over(arn, site=site, clients=clients)


def _identity(batch: Sequence[BatchImage], *, bundle: Bundle, site: Site) -> str:
    """What decides the answers: the model, its program, and the images."""
    images = sorted((image.name, image.version) for image in batch if not image.error)
    files, engine = bundle.metadata.files, bundle.metadata.compiled_for
    content = [files, *engine, site.image, site.fresh, images]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"darkroom-transform-{digest[:_DIGITS]}"
