"""The engine that was asked for, loaded with a bundle's network."""

from pathlib import Path

from darkroom.engines.protocol import Engine, EngineName
from darkroom.model.bundle import ONNX_FILE, BundleMetadata


def load_engine(
    name: EngineName, *, folder: Path, metadata: BundleMetadata, threads: int
) -> Engine:
    """Load the network of an unpacked, checked bundle.

    Args:
        folder: of the bundle; not needed any more once this returns.
        threads: inside the network, for each call.

    Raises:
        UserError: the engine is not installed, or refuses the network.
    """
    from darkroom.engines.onnx_runtime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(
        folder / ONNX_FILE,
        threads=threads,
        image_size=metadata.preprocessing.image_size,
        classes=len(metadata.classes),
    )
