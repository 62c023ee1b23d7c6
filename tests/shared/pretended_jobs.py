"""An image whose `train` only pretends, so that jobs take no time; and an account to run it in.

It prints, checkpoints and leaves what darkroom's own program does; the model is one that is
given. Its environment decides how it goes: PRETEND_FAIL, PRETEND_EXIT, PRETEND_PAUSE,
PRETEND_LINGER.
"""

import json
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from darkroom.backends.sagemaker.cleanup import Selection, find
from darkroom.backends.sagemaker.resources import Resource
from darkroom.backends.sagemaker.session import Clients, SageMakerContext
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.data.dataset import Dataset
from rehearsal.emulator.faults import parse_fault
from rehearsal.emulator.server import Running, emulator
from small_bundles import write_small_bundle

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/pretended:1"
ROLE = "arn:aws:iam::123456789012:role/Jobs"

_TRAIN = """#!{python}
import json, math, os, pathlib, shutil, signal, sys, time
root = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
given = json.loads((root / "input/config/hyperparameters.json").read_text())
given = {{name: value.strip('"') for name, value in given.items()}}
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
checkpoint = root / "checkpoints/epochs"
done = int(checkpoint.read_text()) if checkpoint.exists() else 0
if done:
    print(f"going on after epoch {{done}}", flush=True)
score = 1 / (1 + abs(math.log10(float(given["learning_rate"]) / 0.003)))
names = ("accuracy balanced_accuracy f1_macro precision_macro recall_macro log_loss "
         "calibration_error").split()
history = []
for epoch in range(1, int(given["epochs"]) + 1):
    if epoch > done:
        time.sleep(float(os.environ.get("PRETEND_PAUSE", "0")))
        if epoch == 2 and os.environ.get("PRETEND_FAIL"):
            (root / "output").mkdir(exist_ok=True)
            (root / "output/failure").write_text(os.environ["PRETEND_FAIL"])
            print("something is wrong", flush=True)
            sys.exit(int(os.environ.get("PRETEND_EXIT", "1")))
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_text(str(epoch))
    validation = dict.fromkeys(names, score * epoch / int(given["epochs"]))
    history.append(dict(epoch=epoch, learning_rate=0.1, train_loss=1 / epoch, train_accuracy=0.5,
                        validation=validation, images_per_second=100 / 3, seconds=1.0))
    pairs = " ".join(f"validation_{{name}}={{value:.10g}}" for name, value in validation.items())
    print(f"epoch={{epoch}} learning_rate=0.1 train_loss={{1 / epoch:.10g}} train_accuracy=0.5 "
          f"{{pairs}} images_per_second=33.33333333 seconds=1", flush=True)
print(f"best_epoch={{epoch}} {{pairs}}", flush=True)
(root / "output/data").mkdir(parents=True, exist_ok=True)
(root / "output/data/history.json").write_text(
    json.dumps(dict(objective="f1_macro", best_epoch=epoch, epochs=history)))
(root / "model").mkdir(exist_ok=True)
for file in pathlib.Path({bundle!r}).iterdir():
    shutil.copy(file, root / "model" / file.name)
time.sleep(float(os.environ.get("PRETEND_LINGER", "0")))
"""


@dataclass
class Account:
    """A stand-in for AWS with a bucket, and the means to look at it."""

    aws: Running
    folder: Path

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """Make it the AWS of this process, and nothing of the user's."""
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, str(self.folder / "none"))
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAREHEARSALUSER000")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_ENDPOINT_URL", self.aws.url)

    @cached_property
    def clients(self) -> Clients:
        return Clients("us-east-1")

    def site(self, **config: Any) -> SageMakerContext:
        return SageMakerContext(
            region="us-east-1",
            role=ROLE,
            image=IMAGE,
            root="s3://bucket/darkroom",
            config=SageMakerConfig.model_validate(config),
            run="a-run",
        )

    def fault(self, name: str, **settings: Any) -> None:
        """Make something go wrong."""
        self.aws.state.faults.add(parse_fault({"name": name, **settings}))

    def struck(self) -> list[str]:
        """Names of the faults that have struck."""
        return [fault["name"] for fault in self.aws.state.faults.applied]

    def running(self) -> list[Resource]:
        """What of its run goes on."""
        return find(Selection(run=self.site().run), clients=self.clients)

    def jobs(self, contains: str) -> list[str]:
        """Names of the training jobs there are, oldest first."""
        answer = self.clients.sagemaker.list_training_jobs(
            NameContains=contains, SortBy="CreationTime", SortOrder="Ascending"
        )
        return [job["TrainingJobName"] for job in answer["TrainingJobSummaries"]]


@contextmanager
def account(folder: Path, *, dataset: Dataset, real: bool = False) -> Iterator[Account]:
    """An account whose jobs pretend, or train in earnest."""
    image = write_image(folder / "image", dataset=dataset)
    images = {IMAGE: None if real else image}
    with emulator(folder / "aws", images=images, stop_grace_seconds=5) as running:
        running.client("s3").create_bucket(Bucket="bucket")
        yield Account(running, folder=folder)


def write_image(folder: Path, *, dataset: Dataset) -> Path:
    """The image, and in it a bundle that claims to be trained on the data set."""
    bundle = write_small_bundle(folder / "bundle")
    metadata = json.loads((bundle / "model.json").read_text())
    metadata["data_fingerprint"] = dataset.fingerprint
    (bundle / "model.json").write_text(json.dumps(metadata))
    program = folder / "bin" / "train"
    program.parent.mkdir()
    program.write_text(_TRAIN.format(python=sys.executable, bundle=str(bundle)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return folder
