"""The command line as a process, and what it offers."""

import os
import subprocess
import sys
from pathlib import Path

from checkout import CHECKOUT

_CONFIGURED = {"--stack", "--config", "--data", "--set"}

OPTIONS = {
    "": {*_CONFIGURED, "--version", "--summary", "--keep-endpoint", "--no-cache", "--fault"},
    "batch": {
        *("--out", "--model", "--stack", "--split", "--top-k", "--config", "--set", "--no-resume")
    },
    "check": {*_CONFIGURED, "--refresh-prices"},
    "predict": {
        *("--model", "--endpoint", "--stack", "--target-model", "--zip-encoding", "--top-k"),
        *("--json", "--csv", "--all-rows", "--out", "--grid", "--grid-images"),
    },
    "serve": {
        *("--models", "--port", "--engine", "--workers", "--memory-limit-mb"),
        *("--allow-urls", "--url-hosts", "--capture", "--capture-percent"),
    },
    "deploy": {"--name", "--stack", "--config", "--set", "--check"},
    "compile": {"--images", "--out", "--config", "--set"},
    "compare": {"--out"},
    "endpoints": {"--stack", "--json"},
    "down": {"--stack", "--model", "--run", "--all", "--expired", "--yes"},
    "runs": {"--sort", "--json"},
    "prune": {"--keep", "--yes"},
    "ui": {"--stack", "--port"},
}
"""The public surface: a change here is a change for users."""


def run(*arguments: str, cwd: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "run.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=dict(os.environ),
        timeout=100,
        check=False,
    )
