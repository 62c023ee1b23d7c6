"""How long the rehearsal of the digits takes, and how much memory all its processes use.

    python -m benchmarks.rehearsal [--rounds 1]

From the start of run.py to its end: the stand-in's start and stop, ingest, four trials of a
tuning job, evaluation, registration, a verified endpoint and a batch transform.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click
import psutil

_CHECKOUT = Path(__file__).resolve().parent.parent
_SECONDS_BETWEEN_LOOKS = 0.5


@click.command()
@click.option("--rounds", default=1, show_default=True)
def main(rounds: int) -> None:
    """Run it, each time in an empty workspace."""
    measured = [_measure() for _ in range(rounds)]
    seconds, peak = (statistics.median(values) for values in zip(*measured, strict=True))
    click.echo(f"{seconds:.0f} s, {peak / 1e9:.2f} GB at the most (median of {rounds})")


def _measure() -> tuple[float, float]:
    """Seconds, and the largest sum of memory over all processes, in bytes."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "run.py", "--stack", "rehearsal", "--set", "batch.split=test"]
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=_CHECKOUT, env={**os.environ, "DARKROOM_HOME": home}
        )
        watch = _Memory(process.pid)
        watch.start()
        if process.wait():
            raise SystemExit("the rehearsal failed")
        seconds = time.perf_counter() - started
        watch.join()
        return seconds, watch.peak


class _Memory(threading.Thread):
    """Adds up what a process and its descendants occupy; shared pages count once (PSS)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self.peak = 0.0

    def run(self) -> None:
        """Look until the process has ended."""
        while self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
            self.peak = max(self.peak, self._now())
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _now(self) -> float:
        total = 0.0
        for process in _family(self._process):
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return total


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


if __name__ == "__main__":
    main()
