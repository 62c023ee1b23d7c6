"""Bundles that need no training and no torch: a network that names the brightest channel."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from darkroom.images import Preprocessing
from darkroom.models.bundle import (
    METADATA_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    BundleMetadata,
    ExportCheck,
    digests,
    pack,
)

CLASSES = ("blue", "green", "red")
"""By alphabet; the network's outputs are the channels 2, 1, 0."""


def write_small_bundle(
    folder: Path, *, image_size: int = 16, outputs: int = 3, classes: tuple[str, ...] = CLASSES
) -> Path:
    """Write a bundle whose network averages each channel; return `folder`."""
    folder.mkdir(parents=True)
    weights = np.zeros((3, outputs), dtype=np.float32)
    weights[[2, 1, 0], range(3)] = 8
    onnx.save(_network(weights, image_size=image_size), folder / ONNX_FILE)
    write_other_weights(folder, name="small")
    metadata = BundleMetadata(
        architecture="resnet18",
        classes=classes,
        preprocessing=Preprocessing(resize_size=image_size, image_size=image_size),
        hyperparameters={"architecture": "resnet18"},
        metrics={"accuracy": 1.0},
        data_fingerprint="0" * 64,
        versions={},
        export_check=ExportCheck(images=1, maximum_probability_difference=0, top1_agreement=1),
        files=digests(folder),
    )
    (folder / METADATA_FILE).write_text(metadata.model_dump_json())
    return folder


def pack_small_bundle(archive: Path, *, image_size: int, classes: tuple[str, ...]) -> Path:
    """Write such a bundle as model.tar.gz; return `archive`."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        pack(write_small_bundle(folder, image_size=image_size, classes=classes), archive)
    return archive


def write_other_weights(folder: Path, *, name: str) -> None:
    """Replace the weights, which are not read when predicting, by a tensor of that name."""
    save_file({name: np.zeros(2, dtype=np.float32)}, folder / WEIGHTS_FILE)


def rewrite_digests(folder: Path) -> None:
    """Make the metadata vouch for the files as they are now."""
    path = folder / METADATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": digests(folder)}))


def write_endless_network(path: Path) -> Path:
    """Write a network for images of 16 pixels whose loop has no end; return `path`."""
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "again",
        [
            scalar("count", TensorProto.INT64, []),
            scalar("going", TensorProto.BOOL, []),
            scalar("before", TensorProto.FLOAT, None),
        ],
        [scalar("still", TensorProto.BOOL, []), scalar("after", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Loop", ["", "true", "images"], ["looped"], body=body),
        helper.make_node("GlobalAveragePool", ["looped"], ["averaged"]),
        helper.make_node("Flatten", ["averaged"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [scalar("images", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [scalar("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array(True), "true")],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def _network(weights: np.ndarray, *, image_size: int) -> onnx.ModelProto:
    images = helper.make_tensor_value_info(
        "images", TensorProto.FLOAT, ["batch", 3, image_size, image_size]
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weights.shape[1]])
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["averaged"]),
        helper.make_node("Flatten", ["averaged"], ["channels"]),
        helper.make_node("MatMul", ["channels", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "network", [images], [logits], [numpy_helper.from_array(weights, "weights")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
