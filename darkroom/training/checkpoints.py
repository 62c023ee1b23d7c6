"""The state of a training between two epochs, in one file that is whole or absent.

safetensors holds the tensors; its header, the JSON of everything else. No pickle.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from darkroom.base.errors import DarkroomError
from darkroom.base.files import atomic_path, sha256_of
from darkroom.base.values import digest_of
from darkroom.config import Hyperparameters
from darkroom.data.dataset import Dataset
from darkroom.models.bundle import content_file
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.training.examples import preprocessing_of

CHECKPOINT_FILE = "checkpoint.safetensors"
_HEADER = "darkroom"
_STATE_VERSION = 1


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: str
    history: list[EpochMetrics]
    scaler: dict[str, float]
    checksum: int


class BrokenCheckpointError(Exception):
    """A checkpoint file that cannot be read."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a training needs to go on after an epoch."""

    identity: str
    """Of what is trained on what: a checkpoint of another identity is of no use."""
    history: Sequence[EpochMetrics]
    model: Mapping[str, Tensor]
    """The state_dict after the last epoch."""
    optimizer: Mapping[str, Tensor]
    """From `optimizer_tensors`."""
    best: Mapping[str, Tensor] = field(default_factory=dict)
    """The state_dict of the best epoch; empty where that is the last."""
    scaler: Mapping[str, float] = field(default_factory=dict)
    """Of float16's loss scaling."""


def training_identity(dataset: Dataset, *, hyperparameters: Hyperparameters) -> str:
    """A digest of everything that decides how a training goes."""
    content = [
        _STATE_VERSION,
        dataset.fingerprint,
        hyperparameters.model_dump(),
        preprocessing_of(hyperparameters).model_dump(),
        *weights_digests(hyperparameters.weights),
    ]
    return digest_of(content)


def weights_digests(weights: str) -> list[str]:
    """The content of initial weights that a path names: what lies there may change."""
    path = content_file(Path(weights).expanduser())
    return [sha256_of(path)] if path.is_file() else []


def training_folder(folder: Path, *, dataset: Dataset, hyperparameters: Hyperparameters) -> Path:
    """Where a training works below `folder`: one place for each identity."""
    return folder / "training" / training_identity(dataset, hyperparameters=hyperparameters)[:16]


def write_checkpoint(checkpoint: Checkpoint, *, folder: Path) -> None:
    """Replace the folder's checkpoint, atomically.

    Raises:
        DarkroomError: the disk is full or not writable; the earlier checkpoint is intact.
    """
    parts = {
        "model": checkpoint.model,
        "optimizer": checkpoint.optimizer,
        "best": checkpoint.best,
    }
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    header = _Header(
        identity=checkpoint.identity,
        history=list(checkpoint.history),
        scaler=dict(checkpoint.scaler),
        checksum=_checksum(tensors),
    )
    path = folder / CHECKPOINT_FILE
    with disk_errors(path), atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_HEADER: header.model_dump_json()})
        temporary.chmod(0o644)


def read_checkpoint(folder: Path, *, identity: str) -> Checkpoint | None:
    """The folder's checkpoint; None where there is none of this identity.

    Raises:
        BrokenCheckpointError: the file is damaged.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = _Header.model_validate_json((file.metadata() or {}).get(_HEADER, ""))
            if header.identity != identity:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValidationError) as error:
        raise BrokenCheckpointError(str(error)) from error
    if _checksum(tensors) != header.checksum:
        raise BrokenCheckpointError("its content is not what was written")
    return Checkpoint(
        identity=identity,
        history=header.history,
        scaler=header.scaler,
        **{part: _part(tensors, part) for part in ("model", "optimizer", "best")},
    )


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state, flat: `<parameter's number>/<name>` to tensor."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a new optimiser over the same parameters the state of an earlier one."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split("/")
        like = parameters[int(number)]
        # The fused kernels walk parameter and state side by side in memory, so the state
        # has to be laid out like its parameter: channels-last, which files do not keep.
        laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[name] = laid_out
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn failures to write `path` into a message that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DarkroomError(
            f"cannot write {str(path)!r}: {error}. What was there before is intact: free some "
            "space or mend the permissions, and the same command goes on from there"
        ) from error


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """The sum of all tensors' 32-bit words: a changed byte changes it, and it is fast."""
    return sum(
        int(tensor.reshape(-1).view(torch.int32).sum(dtype=torch.int64))
        for tensor in tensors.values()
    )
