"""A whole source through a model: in this process, or as a batch transform job."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from darkroom.backends.batch import BatchPrediction, engines_of
from darkroom.backends.ingestion import bring, ingest
from darkroom.batch.order import BatchOrder
from darkroom.batch.predicting import describe, predict_all
from darkroom.batch.rows import BatchImage, joined
from darkroom.batch.selecting import images_in_folder, images_of_dataset, images_of_uris
from darkroom.batch.table import BatchTable, finish, write_parts
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.errors import UserError
from darkroom.files import workspace
from darkroom.model.bundle import Bundle, BundleMetadata, open_bundle, read_bundle
from darkroom.prediction import Predictor
from darkroom.progress import SILENT, Progress
from darkroom.sources.local import existing
from darkroom.sources.source_names import parse_source

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz")
"""How keys of archives end; what ends otherwise is a prefix."""


def classify(order: BatchOrder, *, progress: Progress = SILENT) -> BatchTable:
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
    order: BatchOrder, *, jobs: SageMakerConfig, run: str, fresh: str, progress: Progress = SILENT
) -> BatchTable:
    """The same by a batch transform job; images are uploaded, unless they lie on S3 already.

    Args:
        run: name of the pipeline run, with which all that is created is tagged.
        fresh: not empty: part of the job's name, so that no earlier one is found again.

    Raises:
        UserError: as `classify`, no image is named, or AWS refuses.
        DarkroomError: the job failed.
    """
    from darkroom.backends.sagemaker.clients import Clients
    from darkroom.backends.sagemaker.site import site_of_environment
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


class Ask(Protocol):
    """What classifies files, or the images below an S3 prefix: a row for each, in that order."""

    def __call__(self, images: Sequence[Path] | str, *, bundle: Bundle) -> list[BatchPrediction]:
        """Ask, and wait for the answers."""


def classify_by(ask: Ask, *, order: BatchOrder, progress: Progress = SILENT) -> BatchTable:
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


def check_order(order: BatchOrder) -> None:
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
    order: BatchOrder, *, metadata: BundleMetadata, progress: Progress = SILENT
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
    ask: Ask, *, order: BatchOrder, bundle: Bundle, progress: Progress
) -> tuple[list[BatchImage], list[BatchPrediction]]:
    """Images, and what is answered of them."""
    classes = bundle.metadata.classes
    if prefix := _prefix(order):
        answers = ask(prefix, bundle=bundle)
        uris = [answer.source for answer in answers]
        return images_of_uris(uris, below=prefix, classes=classes), answers
    images = select(order, metadata=bundle.metadata, progress=progress)
    return images, ask([Path(image.place) for image in images], bundle=bundle)


def _prefix(order: BatchOrder) -> str | None:
    """The S3 prefix that a job can work on as it is."""
    if order.source is None or order.split != "all":
        return None
    source = parse_source(order.source)
    is_archive = PurePosixPath(source.location.lower()).suffix in _ARCHIVES
    return source.location if source.kind == "s3" and not is_archive else None
