"""A folder in which the main job is run as a user runs it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from checkout import CHECKOUT

CONFIG = """
data: {validation_fraction: 0.2, test_fraction: 0.2}
model: {architecture: squeezenet1_1, weights: none, image_size: 32}
training: {warmup_epochs: 0.2, augmentation: none}
tuning:
  trials: 2
  search_space: {batch_size: {choices: [8, 16]}, epochs: {low: 1, high: 2}}
deployment: {gate_threshold: 0.0, check_images: 6}
evaluation: {bootstrap_samples: 100, grid_images: 6}
"""


@dataclass
class Workplace:
    """A folder with data, configuration and a workspace of its own."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(CHECKOUT / "run.py"), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        own = {"DARKROOM_HOME": str(self.home), "HOME": str(self.folder / "user")}
        return {**os.environ, **own}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=500,
            check=False,
        )

    def main_job(self, *arguments: str) -> dict:
        summary = self.folder / "summary.json"
        summary.unlink(missing_ok=True)
        result = self.run(*self.job_arguments, "--summary", str(summary), *arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        print(result.stderr)  # why a result was not reused, say
        return json.loads(summary.read_text())

    @property
    def job_arguments(self) -> list[str]:
        return ["--config", str(self.folder / "tiny.yaml"), "--data", str(self.folder / "images")]
