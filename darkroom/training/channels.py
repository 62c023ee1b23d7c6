"""The folders of a training job, by SageMaker's contract, and the data set in its channels."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from darkroom.base.errors import UserError
from darkroom.base.progress import SILENT, Progress
from darkroom.config import DataConfig
from darkroom.data.assembly import assemble
from darkroom.data.dataset import Dataset
from darkroom.data.local import LocalFolder
from darkroom.data.shards import check_complete, unpack_shards, unpacked_name
from darkroom.data.source_names import Source
from darkroom.telemetry.recording import RECORDING_FOLDER

# --- paths of a job ---
# Where the parts of a training job lie, by SageMaker's contract; see program.py.

WEIGHTS_CHANNEL = "weights"
"""Holds the initial weights where the hyperparameter `weights` is an S3 URI."""


CONTAINER_BASE = Path("/opt/ml")
"""The base folder in a container; $SAGEMAKER_BASE_DIR names another."""
CONTAINER_SCRATCH = Path("/tmp/darkroom")  # noqa: S108 - of the container, which has it to itself
"""SageMaker mounts the volume that `sagemaker.training.volume_gb` sizes at /tmp, and at input,
checkpoints, model and output below /opt/ml. All else that a container writes lies on the
machine's system disk, whose size nobody can choose.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-train-storage.html"""


@dataclass(frozen=True)
class JobPaths:
    """The folders of a training job."""

    base: Path
    scratch: Path
    """For what is large and may be lost."""

    @classmethod
    def at(cls, base: Path) -> "JobPaths":
        """A job over a base folder; a container's has its scratch on the job's volume."""
        return cls(base, scratch=CONTAINER_SCRATCH if base == CONTAINER_BASE else base)

    @classmethod
    def of_environment(cls) -> "JobPaths":
        """The job that this process is to do."""
        return cls.at(Path(os.environ.get("SAGEMAKER_BASE_DIR", CONTAINER_BASE)))

    @property
    def config(self) -> Path:
        """What the job is asked to do."""
        return self.base / "input" / "config"

    @property
    def data(self) -> Path:
        """The channels."""
        return self.base / "input" / "data"

    @property
    def checkpoints(self) -> Path:
        """What outlives a stopped job."""
        return self.base / "checkpoints"

    @property
    def cache(self) -> Path:
        """Decoded images, unpacked shards and hashes."""
        return self.scratch / "cache"

    @property
    def model(self) -> Path:
        """The bundle's files."""
        return self.base / "model"

    @property
    def history(self) -> Path:
        """Metrics by epoch."""
        return self.base / "output" / "history.json"

    @property
    def kept_history(self) -> Path:
        """The same, where SageMaker looks for what is to outlive the job."""
        return self.base / "output" / "data" / "history.json"

    @property
    def recording(self) -> Path:
        """What is recorded; with the checkpoints, so that a training that goes on finds it."""
        return self.checkpoints / RECORDING_FOLDER

    @property
    def kept_recording(self) -> Path:
        """A copy, where SageMaker looks for what is to outlive the job."""
        return self.base / "output" / "data" / RECORDING_FOLDER

    @property
    def failure(self) -> Path:
        """Why the job failed; SageMaker shows its first 1,024 characters."""
        return self.base / "output" / "failure"


# --- channels ---

MANIFEST_FILE = "manifest.json"
MANIFEST_CHANNEL = "manifest"
SHARDS_CHANNEL = "shards"
EVALUATION_SHARDS_CHANNEL = "evaluation_shards"
_WHOLE = "training"
_SPLIT = "train"


@dataclass(frozen=True)
class TrainingData:
    """What a training job was given."""

    dataset: Dataset
    held: frozenset[str] | None = None
    """Paths of the training images on this host, where each host has a part; None: all."""


def read_channels(
    folder: Path,
    *,
    seed: int,
    store: Path,
    inputs: Mapping[str, object] | None = None,
    progress: Progress = SILENT,
) -> TrainingData:
    """The data set below `input/data`.

    Validation images are taken from the training images where there are none; a test
    split is not, since a training needs none. Shards are unpacked, once.

    Args:
        store: where hashes are remembered, and shards unpacked to.
        inputs: content of inputdataconfig.json, by channel: it says whether each host has
            all shards or a part of them.

    Raises:
        UserError: no usable channel, damaged shards, or no images to train on.
    """
    channels = [path.name for path in _folders(folder)]
    if {MANIFEST_CHANNEL, SHARDS_CHANNEL} <= {*channels}:
        sharded = _is_sharded((inputs or {}).get(SHARDS_CHANNEL))
        return _read_shards(folder, sharded=sharded, store=store, progress=progress)
    if not {_WHOLE, _SPLIT} & {*channels}:
        raise UserError(
            f"the training job has the channels {channels}; it needs {_SPLIT!r} (and 'validation') "
            f"with class folders, {_WHOLE!r} with an image folder tree or a {MANIFEST_FILE}, or "
            f"{MANIFEST_CHANNEL!r}, {SHARDS_CHANNEL!r} and {EVALUATION_SHARDS_CHANNEL!r}"
        )
    root = folder / _WHOLE if _WHOLE in channels else folder
    if (root / MANIFEST_FILE).is_file():
        return TrainingData(read_manifest(root / MANIFEST_FILE))
    return TrainingData(_read_images(root, seed=seed, store=store, progress=progress))


def read_manifest(path: Path) -> Dataset:
    """A data set by its manifest; its images lie where that says, or beside it.

    Raises:
        UserError: no manifest, or its images are in neither place.
    """
    dataset = parse_manifest(path.read_bytes(), place=str(path))
    for root in (dataset.root, path.parent):
        if (root / dataset.records[0].path).is_file():
            return replace(dataset, root=root)
    raise UserError(
        f"the images of the manifest {str(path)!r} lie neither in {str(dataset.root)!r} "
        "nor beside it"
    )


def parse_manifest(content: bytes, *, place: str) -> Dataset:
    """A data set by the content of its manifest.

    Args:
        place: where that comes from.

    Raises:
        UserError: it is no manifest, or names no images.
    """
    try:
        dataset = Dataset.from_json(content.decode())
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place!r} is no manifest of a data set: {error}") from error
    if not dataset.records:
        raise UserError(f"the manifest {place!r} names no images")
    return dataset


def _read_images(root: Path, *, seed: int, store: Path, progress: Progress) -> Dataset:
    return assemble(
        LocalFolder(root.resolve()),
        source=Source(kind="path", location=str(root)),
        config=DataConfig(test_fraction=0),
        seed=seed,
        store=store,
        progress=progress,
    )


def _read_shards(folder: Path, *, sharded: bool, store: Path, progress: Progress) -> TrainingData:
    manifest = folder / MANIFEST_CHANNEL / MANIFEST_FILE
    if not manifest.is_file():
        raise UserError(f"the channel {MANIFEST_CHANNEL!r} of the job has no {MANIFEST_FILE}")
    dataset = parse_manifest(manifest.read_bytes(), place=str(manifest))
    archives = [
        archive
        for channel in (SHARDS_CHANNEL, EVALUATION_SHARDS_CHANNEL)
        for archive in sorted((folder / channel).rglob("*.tar"))
    ]
    unpacked = unpack_shards(
        archives,
        dataset=dataset,
        folder=store / "shards" / unpacked_name(archives, dataset=dataset),
        progress=progress,
    )
    needed = {"validation images": dataset.split("validation")}
    if not sharded:
        needed["training images"] = dataset.split("train")
    for what, records in needed.items():
        check_complete(records, unpacked=unpacked, what=what, place=str(folder))
    held = unpacked.paths if sharded else None
    return TrainingData(replace(dataset, root=unpacked.root), held=held)


def _is_sharded(settings: object) -> bool:
    distribution = settings.get("S3DistributionType") if isinstance(settings, dict) else None
    return distribution == "ShardedByS3Key"


def check_inputs(inputs: Mapping[str, object]) -> None:
    """Refuse what a job may ask for and `train` cannot do.

    Args:
        inputs: content of inputdataconfig.json, by channel.

    Raises:
        UserError: channels in pipe mode.
    """
    problems = []
    for channel, settings in inputs.items():
        mode = settings.get("TrainingInputMode", "File") if isinstance(settings, dict) else "File"
        if mode not in ("File", "FastFile"):
            problems.append(
                f"channel {channel!r} has the input mode {mode!r}: use File or FastFile"
            )
    if problems:
        raise UserError(problems)


def read_settings(path: Path) -> dict[str, object]:
    """A JSON object of the job's `input/config`; empty where the file is missing.

    Raises:
        UserError: the file is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{str(path)!r} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} must hold a JSON object, not {type(content).__name__}")
    return content


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
