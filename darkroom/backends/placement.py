"""The backend that a placement asks for, and a whole source through a model there."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from darkroom.backends.contract import Backend
from darkroom.backends.predictions import BatchPrediction, engines_of
from darkroom.backends.storage.ingestion import bring, ingest
from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.base.progress import SILENT, Progress
from darkroom.batch.prediction import describe, predict_all
from darkroom.batch.selection import (
    BatchJobSpec,
    images_in_folder,
    images_of_dataset,
    images_of_uris,
)
from darkroom.batch.table import BatchImage, BatchTable, finish, joined, write_parts
from darkroom.config.sagemaker import Placement, SageMakerConfig
from darkroom.data.local import existing
from darkroom.data.source_names import parse_source
from darkroom.models.bundle import Bundle, BundleMetadata, open_bundle, read_bundle
from darkroom.models.prediction import Predictor

# --- choice of the backend ---
# The backend that a placement asks for.


def backend_of(placement: Placement, *, run: str) -> Backend:
    """What does the work.

    Args:
        run: name of the pipeline run, with which everything it creates is tagged.

    Raises:
        UserError: the environment does not say which account to use.
    """
    if placement.jobs is None:
        from darkroom.backends.local.backend import LocalBackend

        return LocalBackend(run, fresh_since=placement.fresh_since)
    from darkroom.backends.sagemaker.backend import SageMakerBackend
    from darkroom.backends.sagemaker.orchestration import image_of_this_job
    from darkroom.backends.sagemaker.session import Clients
    from darkroom.backends.sagemaker.session import context_of_environment as site_of_environment

    site = site_of_environment(placement.jobs, run=run, fresh=placement.fresh)
    clients = Clients(site.region)
    if not site.image:
        site = replace(site, image=image_of_this_job(clients))
    return SageMakerBackend(site, clients=clients)


# --- batch ---

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz")
"""How keys of archives end; what ends otherwise is a prefix."""


def classify(order: BatchJobSpec, *, progress: Progress = SILENT) -> BatchTable:
    """Classify a source's images in this process; one that cannot be read is a row with an error.

    Raises:
        UserError: no such source or bundle, or no images.
        DarkroomError: the model is unusable.
    """
    predictor = Predictor.load(order.model)
    return predict_all(
        select(order, metadata=predictor.metadata, progress=progress),
        predictor=predictor,
        top_k=order.top_k,
        folder=batches(),
        resume=order.resume,
        progress=progress,
    )


def classify_remotely(
    order: BatchJobSpec, *, jobs: SageMakerConfig, run: str, fresh: str, progress: Progress = SILENT
) -> BatchTable:
    """The same by a batch transform job; images are uploaded, unless they lie on S3 already.

    Args:
        run: name of the pipeline run, with which all that is created is tagged.
        fresh: not empty: part of the job's name, so that no earlier one is found again.

    Raises:
        UserError: as `classify`, no image is named, or AWS refuses.
        DarkroomError: the job failed.
    """
    from darkroom.backends.sagemaker.session import Clients
    from darkroom.backends.sagemaker.session import context_of_environment as site_of_environment
    from darkroom.backends.sagemaker.transform import transform

    site = site_of_environment(jobs, run=run, fresh=fresh)
    if not site.image:
        raise UserError(
            "DARKROOM_IMAGE is not set: a batch needs an image that is in ECR already. Push one "
            "(make image-hosting, or make image; docs/sagemaker.md, step 5), and put its URI into "
            "stacks/sagemaker.env."
        )
    ask = partial(transform, site=site, clients=Clients(site.region), progress=progress)
    return classify_by(ask, order=order, progress=progress)


class BatchClient(Protocol):
    """What classifies files, or the images below an S3 prefix: a row for each, in that order."""

    def __call__(self, images: Sequence[Path] | str, *, bundle: Bundle) -> list[BatchPrediction]:
        """Ask, and wait for the answers."""


def classify_by(
    ask: BatchClient, *, order: BatchJobSpec, progress: Progress = SILENT
) -> BatchTable:
    """Have a source classified elsewhere.

    Raises:
        UserError: as `classify`.
    """
    with open_bundle(order.model) as folder:
        bundle = read_bundle(folder)
        images, answers = _asked(ask, order=order, bundle=bundle, progress=progress)
    about = describe(images, metadata=bundle.metadata, program="transform", top_k=order.top_k)
    about = about.model_copy(update={"engine": engines_of(answers)})
    table = BatchTable(batches() / about.identity, about)
    table.discard()  # of an earlier batch: all rows are known now
    write_parts(table.folder, joined(images, answers, top_k=order.top_k))
    return finish(table.folder, about)


def check_order(order: BatchJobSpec) -> None:
    """Find out early, and for nothing, what would make a batch fail.

    Raises:
        UserError: no such file or folder, unknown kind of source, or no usable bundle.
    """
    source = parse_source(order.whole_source)
    if source.kind == "path":
        existing(Path(source.location).expanduser())
    with open_bundle(order.model) as folder:
        read_bundle(folder)


def batches() -> Path:
    """Where the rows of batches lie until they have been written where they were wanted."""
    return workspace() / "batches"


def select(
    order: BatchJobSpec, *, metadata: BundleMetadata, progress: Progress = SILENT
) -> list[BatchImage]:
    """The images that were asked for, fetched and unpacked where that is needed.

    Raises:
        UserError: there are none.
    """
    store, config = workspace() / "data", order.config
    if order.source is None:
        dataset = ingest(
            config.data.source,
            config=config.data,
            seed=config.training.seed,
            store=store,
            progress=progress,
        )
        return images_of_dataset(dataset, split=order.split)
    parsed = parse_source(order.source)
    brought = bring(parsed, config=config.data, store=store, progress=progress)
    return images_in_folder(
        brought.root, split=order.split, classes=metadata.classes, source=parsed.public_name
    )


def _asked(
    ask: BatchClient, *, order: BatchJobSpec, bundle: Bundle, progress: Progress
) -> tuple[list[BatchImage], list[BatchPrediction]]:
    """Images, and what is answered of them."""
    classes = bundle.metadata.classes
    if prefix := _prefix(order):
        answers = ask(prefix, bundle=bundle)
        uris = [answer.source for answer in answers]
        return images_of_uris(uris, below=prefix, classes=classes), answers
    images = select(order, metadata=bundle.metadata, progress=progress)
    return images, ask([Path(image.place) for image in images], bundle=bundle)


def _prefix(order: BatchJobSpec) -> str | None:
    """The S3 prefix that a job can work on as it is."""
    if order.source is None or order.split != "all":
        return None
    source = parse_source(order.source)
    is_archive = PurePosixPath(source.location.lower()).suffix in _ARCHIVES
    return source.location if source.kind == "s3" and not is_archive else None
