"""torch itself: the reference that the others are compared with. Needs the extra `train`."""

from pathlib import Path

import torch

from darkroom.models.bundle import WEIGHTS_FILE, BundleMetadata
from darkroom.models.engine import EngineName, Floats
from darkroom.models.network import build_model, load_weights


class TorchEngine:
    """A bundle's network, built anew from its architecture and safetensors.

    Args:
        threads: inside the network; torch has one number for the whole process.

    Raises:
        UserError: the weights are those of another network.
    """

    name: EngineName = "torch"

    def __init__(self, folder: Path, *, metadata: BundleMetadata, threads: int) -> None:
        torch.set_num_threads(threads)
        network = build_model(
            metadata.architecture,
            classes=len(metadata.classes),
            image_size=metadata.preprocessing.image_size,
            seed=0,
        )
        load_weights(network, folder / WEIGHTS_FILE)
        # Half the time of the default layout on CPUs; torch keeps to it from layer to layer.
        self._network = network.eval().to(memory_format=torch.channels_last)

    def run(self, batch: Floats) -> Floats:
        """(N, 3, S, S) images to (N, C) logits."""
        with torch.inference_mode():
            images = torch.from_numpy(batch).to(memory_format=torch.channels_last)
            logits: Floats = self._network(images).numpy()
        return logits
