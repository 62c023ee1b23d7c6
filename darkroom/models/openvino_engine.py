"""OpenVINO: model.onnx on Intel's and AMD's CPUs. Needs the extra `openvino`."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from darkroom.base.errors import UserError
from darkroom.models.engine import OUTPUT_NAME, EngineName, Floats


class OpenVinoEngine:
    """A network in OpenVINO.

    Args:
        threads: inside the network, for each call.
        precision: "f32", or "bf16": faster where the processor computes it, and inexact.
            OpenVINO itself would choose bf16 wherever it can.

    Raises:
        UserError: OpenVINO refuses the file.
    """

    def __init__(self, path: Path, *, threads: int, precision: str = "f32") -> None:
        self.name: EngineName = "openvino" if precision == "f32" else "openvino-bf16"
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            # Each request has a stream of its own: threads of the server ask side by side.
            "PERFORMANCE_HINT": "THROUGHPUT" if threads == 1 else "LATENCY",
        }
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except (RuntimeError, OSError) as error:
            raise UserError(f"OpenVINO cannot load {str(path)!r}: {error}") from error
        self._requests = threading.local()

    def run(self, batch: Floats) -> Floats:
        """(N, 3, S, S) images to (N, C) logits."""
        request: Any = getattr(self._requests, "mine", None)
        if request is None:
            request = self._requests.mine = self._compiled.create_infer_request()
        # Copied: the request writes its next result to the same place.
        return np.array(request.infer({0: batch})[OUTPUT_NAME], dtype=np.float32)
