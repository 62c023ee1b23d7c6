"""The engine that was asked for, loaded with a bundle's network."""

from importlib.util import find_spec
from pathlib import Path

from darkroom.base.errors import UserError
from darkroom.models.bundle import ONNX_FILE, BundleMetadata
from darkroom.models.engine import EXTRAS, Engine, EngineName

_MODULES: dict[EngineName, str] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "openvino-bf16": "openvino",
    "torch": "torch",
}


def is_installed(name: EngineName) -> bool:
    """Whether an engine's package is there; it is not imported."""
    return find_spec(_MODULES[name]) is not None


def load_engine(
    name: EngineName,
    *,
    folder: Path,
    metadata: BundleMetadata,
    threads: int,
    seconds: float | None = None,
) -> Engine:
    """Load the network of an unpacked, checked bundle.

    Args:
        folder: of the bundle; not needed any more once this returns.
        threads: inside the network, for each call.
        seconds: that a call may take; known to ONNX Runtime alone. None: as long as it takes.

    Raises:
        UserError: the engine is not installed, or refuses the network.
    """
    if not is_installed(name):
        raise UserError(f"the engine {name!r} is not installed: {advice(name)}")
    if name == "torch":
        from darkroom.models.torch_engine import TorchEngine

        return TorchEngine(folder, metadata=metadata, threads=threads)
    if name == "onnxruntime":
        from darkroom.models.onnx_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(
            folder / ONNX_FILE,
            threads=threads,
            image_size=metadata.preprocessing.image_size,
            classes=len(metadata.classes),
            seconds=seconds,
        )
    from darkroom.models.openvino_engine import OpenVinoEngine

    precision = "bf16" if name == "openvino-bf16" else "f32"
    return OpenVinoEngine(folder / ONNX_FILE, threads=threads, precision=precision)


def advice(name: EngineName) -> str:
    """What to do where it is not installed."""
    return f"pip install 'darkroom[{EXTRAS[name]}]'"
