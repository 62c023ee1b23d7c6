"""What every test starts from: a workspace of its own, and no settings of the user's."""

import os
import sys

# Before torch is imported: tests run side by side, one thread each.
os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pictures import write_image_folder

_FOREIGN = ("AWS_", "DARKROOM_", "MLFLOW_", "SAGEMAKER_", "SM_", "ZENML_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's environment is seen, nothing is written outside tmp_path."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    if "boto3" in sys.modules:  # its default session keeps the credentials that it once found
        monkeypatch.setattr(sys.modules["boto3"], "DEFAULT_SESSION", None)
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "darkroom-home"))


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """`write_image_folder` into a folder of this test's."""
    return partial(write_image_folder, tmp_path / "images")
