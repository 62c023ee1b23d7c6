"""Tests touch nothing of the user's: a home that was empty before them is empty after them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import CHECKOUT

FILES = ("steps/test_failed_training.py", "steps/test_cache_policy.py")
"""The first imports ZenML, which makes its store, MLflow and torch; nothing of it is run."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_leave_an_empty_home_empty(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"),
            *("-k", "not test_failed_training", f"--basetemp={tmp_path / 'base'}"),
            *(f"tests/{name}" for name in FILES),
        ],
        cwd=CHECKOUT,
        env=kept | {"HOME": str(home), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=590,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in home.rglob("*")) == []
    assert not list(temporary.glob("darkroom-tests-home-*"))
