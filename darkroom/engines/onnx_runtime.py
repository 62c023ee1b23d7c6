"""ONNX Runtime, the default engine: model.onnx on the CPU, without torch."""

from pathlib import Path

import onnxruntime

from darkroom.engines.protocol import INPUT_NAME, OUTPUT_NAME, EngineName, Floats
from darkroom.errors import UserError

_ERRORS_ONLY = 3  # ONNX Runtime's log severity


class OnnxRuntimeEngine:
    """A network in ONNX Runtime.

    Args:
        path: float32 (N, 3, S, S) `images` to (N, C) `logits`.
        threads: inside the network, for each call.

    Raises:
        UserError: ONNX Runtime refuses the file, or it is no image classifier.
    """

    name: EngineName = "onnxruntime"

    def __init__(self, path: Path, *, threads: int, image_size: int, classes: int) -> None:
        self._session = open_session(path, threads=threads)
        _check_fit(self._session, path=path, image_size=image_size, classes=classes)

    def run(self, batch: Floats) -> Floats:
        """(N, 3, S, S) images to (N, C) logits."""
        logits: Floats = self._session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0]
        return logits


def open_session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """Load an ONNX file into ONNX Runtime on the CPU.

    Raises:
        UserError: ONNX Runtime refuses the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    # An arena keeps the activations of the largest batch for good (20 to 40 MB a model) and
    # saves no time that could be measured.
    options.enable_cpu_mem_arena = False
    # Threads that spin while they wait take the cores that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise UserError(f"ONNX Runtime cannot load {str(path)!r}: {error}") from error


def _check_fit(
    session: onnxruntime.InferenceSession, *, path: Path, image_size: int, classes: int
) -> None:
    inputs = {value.name: list(value.shape) for value in session.get_inputs()}
    outputs = {value.name: list(value.shape) for value in session.get_outputs()}
    expected = [3, image_size, image_size], [classes]
    if (inputs.get(INPUT_NAME, [])[1:], outputs.get(OUTPUT_NAME, [])[1:]) != expected:
        raise UserError(
            f"the network {str(path)!r} maps {inputs} to {outputs}, but its bundle's "
            f"metadata asks for images of {image_size}×{image_size} pixels and "
            f"{classes} classes: train the bundle again"
        )
