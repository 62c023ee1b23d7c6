"""A whole source through a model: in this process, or as a batch transform job."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.backends.ingestion import bring, ingest
from darkroom.batch.order import BatchOrder
from darkroom.batch.predicting import predict_all
from darkroom.batch.rows import BatchImage, BatchTable, joined
from darkroom.batch.selecting import image_of_uri, images_in_folder, images_of_dataset
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.files import workspace
from darkroom.model.bundle import open_bundle, read_bundle
from darkroom.prediction import Predictor
from darkroom.progress import SILENT, Progress
from darkroom.sources.source_names import parse_source

if TYPE_CHECKING:
    from darkroom.model.bundle import BundleMetadata


def classify(order: BatchOrder, *, progress: Progress = SILENT) -> BatchTable:
    """Classify a source's images in this process; one that cannot be read is a row with an error.

    Raises:
        UserError: no such source or bundle, or no images.
        DarkroomError: the model is unusable.
    """
    predictor = Predictor.load(order.model)
    images = select(order, metadata=predictor.metadata, progress=progress)
    rows = predict_all(
        images,
        predictor=predictor,
        top_k=order.top_k,
        folder=workspace() / "batches",
        resume=order.resume,
        progress=progress,
    )
    metadata = predictor.metadata
    return BatchTable(model_version=metadata.version, classes=metadata.classes, rows=tuple(rows))


def classify_remotely(
    order: BatchOrder, *, jobs: SageMakerConfig, run: str, progress: Progress = SILENT
) -> BatchTable:
    """The same by a batch transform job; images are uploaded, unless they lie on S3 already.

    Raises:
        UserError: as `classify`, or AWS refuses.
        DarkroomError: the job failed.
    """
    from darkroom.backends.sagemaker.clients import Clients
    from darkroom.backends.sagemaker.site import site_of_environment
    from darkroom.backends.sagemaker.transform import transform

    with open_bundle(order.model) as folder:
        bundle = read_bundle(folder)
        metadata = bundle.metadata
        site = site_of_environment(jobs, run=run)
        ask = partial(
            transform, bundle=bundle, site=site, clients=Clients(site.region), progress=progress
        )
        if order.source and order.source.startswith("s3://") and order.split == "all":
            answers = ask(order.source)
            images = [
                image_of_uri(answer.source, below=order.source, classes=metadata.classes)
                for answer in answers
            ]
        else:
            images = select(order, metadata=metadata, progress=progress)
            places = [Path(image.place) for image in images]
            answers = ask(places)
    best = [one.model_copy(update={"top_k": one.top_k[: order.top_k]}) for one in answers]
    rows = tuple(joined(images, best))
    return BatchTable(model_version=metadata.version, classes=metadata.classes, rows=rows)


def select(
    order: BatchOrder, *, metadata: "BundleMetadata", progress: Progress = SILENT
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
