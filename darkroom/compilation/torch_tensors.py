"""Everything that torch computes on the way from an image to the logits."""

from typing import Any

import torch

from darkroom.models.bundle import WEIGHTS_FILE, Bundle
from darkroom.models.engine import Floats
from darkroom.models.network import build_model, load_weights


class _Recorder(torch.fx.Interpreter):
    """Runs a graph, and copies what each node gives: functions and modules alike."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.tensors: list[Floats] = []

    def run_node(self, node: torch.fx.Node) -> Any:  # noqa: ANN401 - as torch has it
        """A copy at once: the next node may write into it."""
        result = super().run_node(node)
        if node.op == "call_function" and isinstance(result, torch.Tensor):
            self.tensors.append(result.numpy().copy())
        return result


def torch_tensors(bundle: Bundle, *, images: Floats) -> tuple[list[Floats], Floats]:
    """Tensors of the first of (N, 3, S, S) images, in order, and the (N, C) logits of all.

    Raises:
        UserError: the weights are those of another network.
    """
    metadata = bundle.metadata
    network = build_model(
        metadata.architecture,
        classes=len(metadata.classes),
        image_size=metadata.preprocessing.image_size,
        seed=0,
    )
    load_weights(network, bundle.folder / WEIGHTS_FILE)
    batch = torch.from_numpy(images)
    with torch.no_grad():
        graph = torch.export.export(network.eval(), (batch[:1],)).module()
        recorder = _Recorder(graph)
        recorder.run(batch[:1])
        logits: Floats = network(batch).numpy()
    return recorder.tensors, logits
