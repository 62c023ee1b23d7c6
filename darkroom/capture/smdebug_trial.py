"""The folder of a SageMaker Debugger trial: its files, and what its tensors are called.

    collections/000000000/worker_0_collections.json    which tensors belong together
    events/<step>/<step>_worker_0.tfevents             the tensors (tensor_events.py)
    index/<thousand>/<step>_worker_0.json              where in them each tensor lies
    training_job_end.ts                                nothing will follow

Names are those that smdebug's hook would give. Statistics are stored as a vector
`statistics/<name>`; of weights, gradients and activations also as smdebug's reductions (min,
max, mean, std and abs_mean), for its own tools. The shares of channels are `units/<name>`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.rules.evidence import Kind

REDUCTIONS: Mapping[str, str] = {
    "mean": "mean",
    "std": "std",
    "minimum": "min",
    "maximum": "max",
    "abs_mean": "abs_mean",
}
"""Our column to smdebug's reduction."""
REDUCED: tuple[Kind, ...] = ("weight", "gradient", "activation")
STATISTICS_PREFIX, UNITS_PREFIX = "statistics/", "units/"
GRADIENT_PREFIX = "gradient/"
LOSS, LOGITS, LABELS = (
    "CrossEntropyLoss_output_0",
    "CrossEntropyLoss_input_0",
    "CrossEntropyLoss_input_1",
)
_PATTERNS = {
    "weights": r"^(?!gradient/|statistics/|units/)\w+_.*(?<!bias)(?<!put_\d)$",
    "biases": r"^(?!gradient/|statistics/|units/).*bias$",
    "gradients": "^gradient/",
    "losses": f"^{LOSS}$",
    "activations": r"^(?!statistics/|units/).*_output_\d+$",
    "activation_inputs": r"^(?!statistics/|units/).*_input_\d+$",
    "statistics": f"^{STATISTICS_PREFIX}",
    "units": f"^{UNITS_PREFIX}",
}
"""By collection; smdebug's own would take in statistics."""
_REDUCED_COLLECTIONS = ("weights", "gradients", "activations")
_OF_EVERY_TRIAL = ("default", "all")
_WORKER = "worker_0"
_STEPS_PER_INDEX_FOLDER = 1000


def tensor_name(name: str, *, kind: Kind, root: str) -> str:
    """The name that smdebug's hook gives a tensor.

    Args:
        root: class of the network, which the hook puts before the names of parameters.
    """
    if kind in ("weight", "bias"):
        return f"{root}_{name}"
    if kind == "gradient":
        return f"{GRADIENT_PREFIX}{root}_{name}"
    if kind == "input":
        return f"{root}_input_0"
    if kind in ("activation", "activation_input"):
        module, _, number = name.partition(":")
        return f"{module}_{'output' if kind == 'activation' else 'input'}_{number or 0}"
    return {"loss": LOSS, "logits": LOGITS, "labels": LABELS}[kind]


def events_file(trial: Path, *, step: int) -> Path:
    """The file of one step's tensors; steps of all modes are counted together."""
    return trial / "events" / f"{step:012}" / f"{step:012}_{_WORKER}.tfevents"


def index_file(trial: Path, *, step: int) -> Path:
    """The file that says where one step's tensors lie."""
    folder = f"{step // _STEPS_PER_INDEX_FOLDER:09}"
    return trial / "index" / folder / f"{step:012}_{_WORKER}.json"


def collections_file(trial: Path) -> Path:
    """The file that says which tensors belong together."""
    return trial / "collections" / f"{0:09}" / f"{_WORKER}_collections.json"


def end_mark(trial: Path) -> Path:
    """The file by which readers know that no step will follow."""
    return trial / "training_job_end.ts"


def collections() -> dict[str, Any]:
    """The content of `collections_file`."""
    return {
        "collections": {name: _collection(name) for name in (*_OF_EVERY_TRIAL, *_PATTERNS)},
        "_meta": {"num_workers": 1},
    }


def _collection(name: str) -> dict[str, Any]:
    is_reduced = name in _REDUCED_COLLECTIONS
    return {
        "name": name,
        "include_regex": [_PATTERNS[name]] if name in _PATTERNS else [],
        "tensor_names": [],
        "reduction_config": {
            "save_raw_tensor": not is_reduced,
            "reductions": ",".join(REDUCTIONS.values()) if is_reduced else "",
            "save_shape": False,
        },
        "save_config": None,  # what a hook would do next; nobody who reads needs it
        "save_histogram": name != "losses",
    }
