"""The data set of a training job: what lies in the channels of SageMaker's contract.

input/data/train/<class>/…  validation/<class>/…  [test/<class>/…]   a channel a split
input/data/training/…                            one channel with an image folder tree
input/data/training/manifest.json                one channel with a Dataset's manifest
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from darkroom.config import DataConfig
from darkroom.dataset import Dataset
from darkroom.errors import UserError
from darkroom.progress import SILENT, Progress
from darkroom.sources.assembling import assemble
from darkroom.sources.local import LocalFolder
from darkroom.sources.source_names import Source

MANIFEST_FILE = "manifest.json"
_WHOLE = "training"
_SPLIT = "train"


def read_channels(folder: Path, *, seed: int, store: Path, progress: Progress = SILENT) -> Dataset:
    """The data set below `input/data`.

    Validation images are taken from the training images where there are none; a test
    split is not, since a training needs none.

    Args:
        store: where hashes are remembered.

    Raises:
        UserError: no usable channel, or no images to train on.
    """
    channels = [path.name for path in _folders(folder)]
    if _WHOLE in channels:
        root = folder / _WHOLE
        if (root / MANIFEST_FILE).is_file():
            return read_manifest(root / MANIFEST_FILE)
    elif _SPLIT in channels:
        root = folder
    else:
        raise UserError(
            f"the training job has the channels {channels}; it needs {_SPLIT!r} (and 'validation') "
            f"with class folders, or {_WHOLE!r} with an image folder tree or a {MANIFEST_FILE}"
        )
    return assemble(
        LocalFolder(root.resolve()),
        source=Source(kind="path", location=str(root)),
        config=DataConfig(test_fraction=0),
        seed=seed,
        store=store,
        progress=progress,
    )


def read_manifest(path: Path) -> Dataset:
    """A data set by its manifest; its images lie where that says, or beside it.

    Raises:
        UserError: no manifest, or its images are in neither place.
    """
    try:
        dataset = Dataset.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(path)!r} is no manifest of a data set: {error}") from error
    if not dataset.records:
        raise UserError(f"the manifest {str(path)!r} names no images")
    for root in (dataset.root, path.parent):
        if (root / dataset.records[0].path).is_file():
            return replace(dataset, root=root)
    raise UserError(
        f"the images of the manifest {str(path)!r} lie neither in {str(dataset.root)!r} "
        "nor beside it"
    )


def check_job(*, resources: Mapping[str, object], inputs: Mapping[str, object]) -> None:
    """Refuse what a job may ask for and `train` cannot do.

    Args:
        resources: content of resourceconfig.json.
        inputs: content of inputdataconfig.json, by channel.

    Raises:
        UserError: several machines, or streamed channels.
    """
    problems = []
    hosts = resources.get("hosts", ())
    if isinstance(hosts, list) and len(hosts) > 1:
        problems.append(
            f"the job has {len(hosts)} instances; training runs on one: set InstanceCount to 1, "
            "and the hyperparameter 'processes' to the number of its GPUs"
        )
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
