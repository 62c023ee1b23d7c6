"""What an engine is, and which there are. Imports none of them."""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

EngineName = Literal["onnxruntime", "openvino", "openvino-bf16", "torch"]
"""`onnxruntime` is part of the base install; the others need their extras."""

DEFAULT_ENGINE: EngineName = "onnxruntime"

EXTRAS: dict[EngineName, str] = {
    "onnxruntime": "",
    "openvino": "openvino",
    "openvino-bf16": "openvino",
    "torch": "train",
}
"""The extra of the package `darkroom` that an engine comes with."""

INEXACT: frozenset[EngineName] = frozenset({"openvino-bf16"})
"""Engines that compute with fewer digits than the network was trained with."""

INPUT_NAME = "images"
OUTPUT_NAME = "logits"


class Engine(Protocol):
    """A loaded network. Safe to call from several threads at once."""

    @property
    def name(self) -> EngineName:
        """Which engine it is."""

    def run(self, batch: Floats) -> Floats:
        """(N, 3, S, S) preprocessed images, N at least 1, to (N, C) logits."""
