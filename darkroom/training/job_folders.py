"""Where the parts of a training job lie, by SageMaker's contract; see program.py."""

import os
from dataclasses import dataclass
from pathlib import Path

from darkroom.capture.layout import RECORDING_FOLDER

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
class Job:
    """The folders of a training job."""

    base: Path
    scratch: Path
    """For what is large and may be lost."""

    @classmethod
    def at(cls, base: Path) -> "Job":
        """A job over a base folder; a container's has its scratch on the job's volume."""
        return cls(base, scratch=CONTAINER_SCRATCH if base == CONTAINER_BASE else base)

    @classmethod
    def of_environment(cls) -> "Job":
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
