"""Eager PyTorch as people write it by hand: what the peers answer with. Knows no darkroom.

The folder holds model.safetensors and network.json, which serving_peers.py writes.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2


class Network:
    """A torchvision network with its preprocessing."""

    def __init__(self, folder: str) -> None:
        facts = json.loads(Path(folder, "network.json").read_text())
        self.classes: list[str] = facts["classes"]
        self._model = torchvision.models.get_model(
            facts["architecture"], weights=None, num_classes=len(self.classes)
        )
        self._model.load_state_dict(load_file(Path(folder, "model.safetensors")))
        self._model.eval()
        self._transform = v2.Compose(
            [
                v2.Resize(facts["resize_size"]),
                v2.CenterCrop(facts["image_size"]),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(facts["mean"], facts["std"]),
            ]
        )

    def prepare(self, image: bytes) -> torch.Tensor:
        """An encoded image to (3, S, S) floats."""
        tensor: torch.Tensor = self._transform(Image.open(io.BytesIO(image)).convert("RGB"))
        return tensor

    @torch.inference_mode()
    def classify(self, batch: torch.Tensor) -> list[dict[str, Any]]:
        """(N, 3, S, S) floats to the five most probable classes of each."""
        found = self._model(batch).softmax(dim=1).topk(min(5, len(self.classes)))
        return [
            self._answer(probabilities.tolist(), indices=indices.tolist())
            for probabilities, indices in zip(found.values, found.indices, strict=True)
        ]

    def _answer(self, probabilities: list[float], *, indices: list[int]) -> dict[str, Any]:
        top = [
            {"class": self.classes[index], "probability": probability}
            for index, probability in zip(indices, probabilities, strict=True)
        ]
        return {**top[0], "top_k": top}
