"""Packing a trained network as a bundle: weights, ONNX, metadata, and proof that they agree."""

import base64
import contextlib
import copy
import io
import logging
import platform
import shutil
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import atomic_path, write_text
from darkroom.config import Hyperparameters
from darkroom.data.dataset import Dataset
from darkroom.images import Preprocessing, prepare
from darkroom.models.bundle import (
    METADATA_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    BundleMetadata,
    ExportCheck,
    Parity,
    digests,
    parity_picture,
)
from darkroom.models.engine import INPUT_NAME, OUTPUT_NAME, Floats
from darkroom.models.network import save_weights
from darkroom.models.onnx_engine import open_session
from darkroom.models.prediction import available_cores, softmax

MAX_CHECKED_IMAGES = 128
MAX_PROBABILITY_DIFFERENCE = 1e-3
"""Beyond it the exporter changed the network; float32 rounding stays below 1e-5."""

_BATCH = 32
_VERSIONED = ("darkroom", "torch", "torchvision", "onnx", "onnxruntime", "numpy", "pillow")


def pack_bundle(
    model: nn.Module,
    *,
    dataset: Dataset,
    hyperparameters: Hyperparameters,
    preprocessing: Preprocessing,
    metrics: dict[str, float],
    folder: Path,
) -> BundleMetadata:
    """Write the bundle of a trained network as `folder`, whole or not at all.

    Args:
        model: maps float32 (N, 3, S, S) to (N, C) logits, C in the order of `dataset.classes`.
        dataset: its validation images prove that ONNX Runtime predicts what torch does.
        preprocessing: what the network was trained with.
        metrics: of the validation split, at the epoch that was kept.
        folder: replaced where it is a bundle already.

    Raises:
        DarkroomError: ONNX Runtime predicts something else than torch.
        UserError: `folder` holds something else than a bundle.
    """
    _refuse_foreign_content(folder)
    network = portable_copy(model)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_weights(network, temporary / WEIGHTS_FILE)
        export_onnx(network, image_size=preprocessing.image_size, path=temporary / ONNX_FILE)
        metadata = BundleMetadata(
            architecture=hyperparameters.architecture,
            classes=dataset.classes,
            preprocessing=preprocessing,
            hyperparameters=hyperparameters.model_dump(),
            metrics=metrics,
            data_fingerprint=dataset.fingerprint,
            versions=_versions(),
            export_check=_check_export(
                network,
                onnx_file=temporary / ONNX_FILE,
                images=_checked_images(dataset, preprocessing=preprocessing),
            ),
            parity=_parity(network, preprocessing=preprocessing),
            files=digests(temporary),
        ).sealed()
        write_text(temporary / METADATA_FILE, metadata.model_dump_json(indent=1))
        shutil.rmtree(folder, ignore_errors=True)
    return metadata


def portable_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in float32 and evaluation mode, that computes nothing in place.

    The exporter decomposes in-place activations operator by operator, which takes
    MobileNetV2's export from 4 to 6 seconds.
    """
    network = copy.deepcopy(model).to("cpu", torch.float32).eval()
    network = network.to(memory_format=torch.contiguous_format)
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return network


def export_onnx(network: nn.Module, *, image_size: int, path: Path) -> None:
    """Write a network as ONNX with a dynamic batch, its weights inside.

    The same weights give the same bytes: names, sources and stack traces are stripped.
    """
    example = torch.zeros(2, 3, image_size, image_size)
    with _quiet(), torch.no_grad():
        exported = torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
        )
        program = torch.onnx.export(
            exported,
            dynamo=True,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise DarkroomError("torch's ONNX exporter returned nothing")
    path.write_bytes(_anonymous(program.model_proto).SerializeToString(deterministic=True))


def _refuse_foreign_content(folder: Path) -> None:
    occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if occupied and not (folder / METADATA_FILE).is_file():
        raise UserError(
            f"{str(folder)!r} exists and is no model bundle: name another folder for the bundle"
        )


def _checked_images(dataset: Dataset, *, preprocessing: Preprocessing) -> Iterator[Floats]:
    """Batches of validation images, evenly picked, through the path that serving takes."""
    records = dataset.split("validation")
    picked = records[:: max(1, -(-len(records) // MAX_CHECKED_IMAGES))]
    for start in range(0, len(picked), _BATCH):
        batch = picked[start : start + _BATCH]
        yield np.stack([prepare(dataset.file(r), preprocessing) for r in batch])


def _check_export(network: nn.Module, *, onnx_file: Path, images: Iterator[Floats]) -> ExportCheck:
    session = open_session(onnx_file, threads=available_cores())
    # Half the time of the default layout on CPUs; torch keeps to it from layer to layer.
    network = network.to(memory_format=torch.channels_last)
    checked = agreeing = 0
    difference = 0.0
    for batch in images:
        with torch.inference_mode():
            expected = softmax(network(torch.from_numpy(batch)).numpy())
        got = softmax(session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0])
        checked += len(batch)
        agreeing += int((expected.argmax(axis=1) == got.argmax(axis=1)).sum())
        difference = max(difference, float(np.abs(expected - got).max()))
    if not checked:
        raise UserError("the data set has no validation images to check the exported network on")
    if agreeing < checked or not difference <= MAX_PROBABILITY_DIFFERENCE:
        raise DarkroomError(
            f"the ONNX network disagrees with torch on {checked - agreeing} of {checked} "
            f"validation images (largest difference of a probability {difference:.2g}, "
            f"allowed {MAX_PROBABILITY_DIFFERENCE:g}): the bundle is not packed"
        )
    return ExportCheck(
        images=checked,
        maximum_probability_difference=difference,
        top1_agreement=agreeing / checked,
    )


def _parity(network: nn.Module, *, preprocessing: Preprocessing) -> Parity:
    picture = parity_picture()
    batch = torch.from_numpy(prepare(picture, preprocessing)).unsqueeze(0)
    with torch.inference_mode():
        expected = softmax(network(batch).numpy())[0]
    return Parity(
        image=base64.b64encode(picture).decode(), probabilities=tuple(map(float, expected))
    )


def _anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Strip what tells where and from which source lines the network was exported."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    graph.name = "network"
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in _VERSIONED}
    return {"python": platform.python_version(), **packages}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks from the user: they concern its own machinery."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
