"""What a server takes: time to start, memory, disk; and many models in little memory."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving_processes import Launch, memory_mb, running
from benchmarks.serving_throughput import load

MEMORY_REQUESTS = 1000
MEMORY_CLIENTS = 8
TIDIED_SECONDS = 22
MODEL_CLIENTS = 4
SLICES = 5
_SAMPLE_SECONDS = 0.25

Measured = dict[str, Any]


def start_seconds(launch: Launch, *, times: int, log: Path) -> Measured:
    """From the start of the process to the first 200 of /ping, again and again."""
    seconds = []
    for _ in range(times):
        with running(launch, log=log) as server:
            seconds.append(server.ready_seconds)
    return {"median": statistics.median(seconds), "worst": max(seconds), "times": times}


def memory(launch: Launch, *, plan: Path, log: Path) -> Measured:
    """Of all the server's processes, in MB: ready, after 1,000 requests, and idle."""
    with running(launch, log=log) as server:
        found: Measured = {"ready": memory_mb(server.process.pid)}
        told = load(server.url, plan=plan, clients=MEMORY_CLIENTS, requests=MEMORY_REQUESTS)
        found[f"after {MEMORY_REQUESTS:,} requests"] = memory_mb(server.process.pid)
        # The server gives back what is free every 20 s.
        time.sleep(TIDIED_SECONDS)
        found[f"{TIDIED_SECONDS} s later"] = memory_mb(server.process.pid)
    return {"mb": found, "requests": told}


def many_models(launch: Launch, *, plan: Path, scratch: Path, log: Path) -> Measured:
    """A plan's requests in five parts, memory looked at all the while.

    growth: mean of the last part over that of the first; slope: of a line through the
    samples after the first part, in MB for 1,000 requests.
    """
    slices = _slices(plan, scratch=scratch)
    told, samples = [], []
    with running(launch, log=log) as server:
        for position, part in enumerate(slices):
            outcome, seen = _watched(server.url, plan=part, pid=server.process.pid)
            told.append(outcome)
            share = np.linspace(position, position + 1, len(seen), endpoint=False) / SLICES
            samples.append((share, seen))
    requests = sum(one["requests"] for one in told)
    means = [float(np.mean(seen)) for _, seen in samples]
    at = np.concatenate([share for share, _ in samples[1:]]) * requests / 1000
    slope = np.polyfit(at, np.concatenate([seen for _, seen in samples[1:]]), 1)[0]
    return {
        "requests": requests,
        **{name: sum(one[name] for one in told) for name in ("errors", "wrong")},
        "rate": requests / sum(one["seconds"] for one in told),
        "p99": max(one["p99"] for one in told),
        "pss_mb": [round(mean, 1) for mean in means],
        "growth": means[-1] / means[0],
        "slope_mb": float(slope),
    }


def _slices(plan: Path, *, scratch: Path) -> list[Path]:
    requests = json.loads(plan.read_text())["requests"]
    size = len(requests) // SLICES
    files = []
    for position in range(SLICES):
        file = scratch / f"part-{position}.json"
        part = requests[position * size : (position + 1) * size]
        file.write_text(json.dumps({"requests": part}))
        files.append(file)
    return files


def _watched(url: str, *, plan: Path, pid: int) -> tuple[Measured, Sequence[float]]:
    """The outcome of a whole plan, and the server's memory while it was asked."""
    number = len(json.loads(plan.read_text())["requests"])
    command = [sys.executable, "-m", "benchmarks.load", url, "--plan", str(plan)]
    command += ["--clients", str(MODEL_CLIENTS), "--requests", str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        samples = list(_while_running(process, look=lambda: memory_mb(pid)["pss"]))
        output, _ = process.communicate()
    outcome: Measured = json.loads(output)
    return outcome, samples


def _while_running(
    process: "subprocess.Popen[str]", *, look: Callable[[], float]
) -> Iterator[float]:
    while True:
        yield look()
        if process.poll() is not None:
            return
        time.sleep(_SAMPLE_SECONDS)
