"""What the serving benchmark asks, and whom: photographs, bundles, and expected answers.

The networks are untrained, with ten classes, at 224 px; their batch normalisation has seen
some photographs, so that answers differ from image to image, and mix-ups are noticed.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.data.dataset import Dataset
from darkroom.models.bundle import METADATA_FILE, BundleMetadata
from darkroom.models.prediction import Predictor

IMAGE_SIZE = 224
_CALIBRATED_ON = 32
_LOGIT_SPREAD = 2.0


def write_bundle(architecture: str, *, dataset: Dataset, folder: Path) -> Path:
    """Export an untrained network as a bundle, unless it was before."""
    if (folder / METADATA_FILE).exists():
        return folder
    from darkroom.config import Hyperparameters
    from darkroom.models.export import pack_bundle
    from darkroom.models.network import build_model
    from darkroom.training.examples import preprocessing_of

    model = build_model(architecture, classes=len(dataset.classes), image_size=IMAGE_SIZE, seed=0)
    settings = Hyperparameters(architecture=architecture, image_size=IMAGE_SIZE)
    _calibrate(model, dataset=dataset, hyperparameters=settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pack_bundle(
        model,
        dataset=dataset,
        hyperparameters=settings,
        preprocessing=preprocessing_of(settings),
        metrics={},
        folder=folder,
    )
    return folder


def write_copies(bundle: Path, *, number: int, folder: Path) -> list[Path]:
    """Bundles whose classes tell them apart, "m3: dress"; the network is the same file."""
    shutil.rmtree(folder, ignore_errors=True)
    copies = [folder / f"m{position}" for position in range(number)]
    for copy in copies:
        shutil.copytree(bundle, copy, copy_function=os.link)
        text = (bundle / METADATA_FILE).read_text()
        metadata = BundleMetadata.model_validate_json(text)
        classes = tuple(f"{copy.name}: {name}" for name in metadata.classes)
        (copy / METADATA_FILE).unlink()
        renamed = metadata.model_copy(update={"classes": classes})
        (copy / METADATA_FILE).write_text(renamed.model_dump_json())
    return copies


def expected_answers(bundle: Path, *, images: Sequence[Path]) -> list[dict[str, Any]]:
    """What the server has to say about each image: class and probability."""
    predictor = Predictor.load(bundle, threads=1)
    rows = predictor.predict(images)
    best = [predictor.top_k(row, k=1)[0] for row in rows]
    return [{"class": top.class_name, "probability": top.probability} for top in best]


def write_plan(
    images: Sequence[Path], *, expected: Sequence[Mapping[str, Any]], file: Path
) -> Path:
    """A plan for benchmarks/load.py: every image in turn."""
    pairs = zip(images, expected, strict=True)
    requests = [{"file": str(image), "expected": answer} for image, answer in pairs]
    file.write_text(json.dumps({"requests": requests}))
    return file


def write_travelling_plan(
    copies: Sequence[Path],
    *,
    images: Sequence[Path],
    expected: Sequence[Mapping[str, Any]],
    requests: int,
    file: Path,
) -> Path:
    """A plan that asks three models in turn, and moves on to the next after each 100 requests.

    So that every model is evicted and comes back, again and again, while most requests
    find their model in memory.
    """
    planned = []
    for position in range(requests):
        copy = copies[(position // 100 + position % 3) % len(copies)]
        image = position % len(images)
        answer = expected[image]
        named = {**answer, "class": f"{copy.name}: {answer['class']}"}
        headers = {"X-Amzn-SageMaker-Target-Model": copy.name}
        planned.append({"file": str(images[image]), "headers": headers, "expected": named})
    file.write_text(json.dumps({"requests": planned}))
    return file


def _calibrate(model: Any, *, dataset: Dataset, hyperparameters: Any) -> None:
    """Let batch normalisation see photographs, and spread the logits as training would."""
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for module in norms:
        module.momentum = None  # the average of all that is seen, from now on
        module.reset_running_stats()
    images = torch.from_numpy(_photographs(dataset, hyperparameters=hyperparameters))
    head = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        model.train()(images)
        head.weight *= _LOGIT_SPREAD / model.eval()(images).std(dim=0).mean()


def _photographs(dataset: Dataset, *, hyperparameters: Any) -> Any:
    import numpy as np

    from darkroom.images import prepare
    from darkroom.training.examples import preprocessing_of

    how = preprocessing_of(hyperparameters)
    files = [dataset.file(record) for record in dataset.split("train")[:_CALIBRATED_ON]]
    return np.stack([prepare(file, how) for file in files])
