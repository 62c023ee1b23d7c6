"""Runs under the interpreter of `make tvm`: one network, operator by operator.

    python tvm_program.py MODEL.onnx IMAGES.npy TENSORS.npz

Prints what it timed as JSON, and writes every operator's output for the first image as "0",
"1", … in the order in which they ran. Imports nothing of darkroom's.
"""

import json
import sys
import time
from statistics import median
from typing import Any

import numpy as np

_RUNS = 5
_OURS = "vm."
"""Of the virtual machine itself: allocations and checks, and no operators."""


class Watch:
    """What `set_instrument` calls before and after each function of the virtual machine."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []
        self.outputs: list[np.ndarray[Any, Any]] = []
        self.keeps_outputs = False
        self._started = 0.0

    def __call__(
        self,
        function: object,
        name: str,
        before: bool,
        returned: object,
        *arguments: Any,  # noqa: ANN401 - TVM's tensors
    ) -> None:
        """The output is the last argument: kernels write into what they are given."""
        if name.startswith(_OURS):
            return
        if before:
            self._started = time.perf_counter()
            return
        self.calls.append((name, (time.perf_counter() - self._started) * 1e3))
        if self.keeps_outputs:
            self.outputs.append(arguments[-1].numpy().copy())


def main() -> None:
    """Compile, run, tell."""
    model, images_file, tensors_file = sys.argv[1:]
    images = np.load(images_file, allow_pickle=False)
    machine, run, version = compiled(model, shape=(1, *images.shape[1:]))
    logits = [run(image[None]).reshape(-1).tolist() for image in images]
    latency = median(_timed(run, images[:1]) for _ in range(_RUNS))
    watch = Watch()
    machine.set_instrument(watch)
    runs = [_calls(watch, run=run, image=images[:1]) for _ in range(_RUNS)]
    watch.keeps_outputs = True
    _calls(watch, run=run, image=images[:1])
    outputs: dict[str, Any] = {str(n): output for n, output in enumerate(watch.outputs)}
    np.savez(tensors_file, **outputs)
    operators = [
        {"name": calls[0][0], "ms": median(ms for _, ms in calls)}
        for calls in zip(*runs, strict=True)
    ]
    answer = {"version": version, "latency_ms": latency, "logits": logits, "operators": operators}
    print(json.dumps(answer))


def compiled(model: str, *, shape: tuple[int, ...]) -> tuple[Any, Any, str]:
    """The virtual machine, a function from (1, 3, S, S) to logits, and TVM's version."""
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    network = onnx.load(model)
    module = from_onnx(network, shape_dict={network.graph.input[0].name: list(shape)})
    module = relax.get_pipeline("zero")(module)  # fuses; tvm.compile's own pipeline does not
    program = tvm.compile(module, tvm.target.Target({"kind": "llvm"}))
    machine = relax.VirtualMachine(program, tvm.cpu())

    def run(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        output = machine["main"](tvm.runtime.tensor(np.ascontiguousarray(image)))
        logits: np.ndarray[Any, Any] = output.numpy()
        return logits

    return machine, run, tvm.__version__


def _calls(watch: Watch, *, run: Any, image: np.ndarray[Any, Any]) -> list[tuple[str, float]]:  # noqa: ANN401
    watch.calls = []
    run(image)
    return watch.calls


def _timed(run: Any, image: np.ndarray[Any, Any]) -> float:  # noqa: ANN401
    started = time.perf_counter()
    run(image)
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    main()
