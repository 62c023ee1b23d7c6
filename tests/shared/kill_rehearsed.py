"""A stand-in that is kept up, commands that run on it, and machines of its that crash."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import boto3
import psutil
import requests

from checkout import CHECKOUT
from pictures import write_image_folder
from rehearsal.emulator.records import Record, Records

T = TypeVar("T")

CONFIG = """
data: {validation_fraction: 0.2, test_fraction: 0.2}
model: {architecture: squeezenet1_1, weights: none, image_size: 32}
training: {warmup_epochs: 0.2, augmentation: none}
tuning:
  trials: 2
  search_space:
    batch_size: {choices: [8, 16]}
    epochs: {low: 1, high: 1}
    learning_rate: null
    weight_decay: null
deployment: {gate_threshold: 0.0, check_images: 4}
evaluation: {bootstrap_samples: 100, grid_images: 6}
batch: {split: test}
"""
_PATIENCE_SECONDS = 900
_SECONDS_BETWEEN_LOOKS = 0.2


class Command:
    """`run.py` on the rehearsal, as a process without a terminal."""

    def __init__(self, process: "subprocess.Popen[bytes]", *, log: Path) -> None:
        self.process, self._log = process, log

    @property
    def said(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    def says(self, text: str) -> None:
        """Wait until it does."""
        until(lambda: text in self.said, self.has_not_ended_without(text))

    def has_not_ended_without(self, text: str) -> Callable[[], bool]:
        return lambda: self.process.poll() is None or text in self.said

    def ends(self) -> int:
        """Its exit code."""
        return self.process.wait(_PATIENCE_SECONDS)


@dataclass(frozen=True)
class Place:
    """A workspace with pictures and a stand-in."""

    folder: Path
    environment: dict[str, str]
    stand_in: psutil.Process | None = None
    """None: each command starts its own."""

    def start(self, *arguments: str) -> Command:
        """Give a command; it runs beside this process."""
        log = self.folder / f"command-{time.monotonic_ns()}.log"
        fixed = ["--stack", "rehearsal", "--config", "tiny.yaml", "--data", "images"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(CHECKOUT / "run.py"), *fixed, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Command(process, log=log)

    def records(self) -> Records:
        """All that the emulator has recorded."""
        headers = {"Authorization": f"Bearer {self._access_key}"}
        answer = requests.get(
            f"{self._kept['aws']}/_rehearsal/records", headers=headers, timeout=30
        )
        return Records.model_validate(answer.json())

    def things(self, kind: str) -> list[Record]:
        """Jobs, or endpoints, oldest first; without those that only run a pipeline."""
        return [r for r in self.records().resources if r.kind == kind and not _runs_pipeline(r)]

    def orchestrations(self) -> list[Record]:
        """The jobs that run a pipeline, oldest first."""
        return [record for record in self.records().resources if _runs_pipeline(record)]

    def log(self, job: str) -> str:
        """What a job has printed."""
        logs = self.client("logs")
        with suppress(logs.exceptions.ResourceNotFoundException):
            found = logs.filter_log_events(
                logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{job}/"
            )
            return "\n".join(event["message"] for event in found["events"])
        return ""

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self._kept["aws"],
            region_name="us-east-1",
            aws_access_key_id=self._access_key,
            aws_secret_access_key=self._kept["password"],
        )

    def unfinished_runs(self) -> list[str]:
        """Names of the pipeline runs that ZenML takes for running."""
        url, session = f"{self._kept['zenml']}/api/v1", requests.Session()
        login = {"username": "rehearsal", "password": self._kept["password"]}
        token = session.post(f"{url}/login", data=login, timeout=30).json()["access_token"]
        answer = session.get(
            f"{url}/runs",
            params={"in_progress": "true"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        return [run["name"] for run in answer.json()["items"]]

    def unfinished_records(self) -> list[str]:
        """Names of the runs that MLflow takes for running."""
        asked = {"experiment_ids": self._experiments(), "filter": "attributes.status = 'RUNNING'"}
        answer = requests.post(f"{self._mlflow}/runs/search", json=asked, timeout=30)
        return [run["info"]["run_name"] for run in answer.json().get("runs", ())]

    def _experiments(self) -> list[str]:
        asked = {"max_results": 100}
        answer = requests.post(f"{self._mlflow}/experiments/search", json=asked, timeout=30)
        return [experiment["experiment_id"] for experiment in answer.json()["experiments"]]

    def crash(self, job: str) -> None:
        """End all processes of a job's machine at once, without a word."""
        assert self.stand_in
        started = self.stand_in.children(recursive=True)
        machine = [process for process in started if _variable(process) == job]
        assert machine, f"no process runs the job {job}"
        for process in machine:
            process.kill()

    @cached_property
    def _kept(self) -> dict[str, Any]:
        return json.loads((self.folder / "home" / "rehearsals" / "kept.json").read_text())

    @property
    def _mlflow(self) -> str:
        return f"{self._kept['mlflow']}/api/2.0/mlflow"

    @property
    def _access_key(self) -> str:
        return f"AKIA{self._kept['password'][:16].upper()}"


@contextmanager
def kept_up(folder: Path) -> Iterator[Place]:
    """`python -m rehearsal` while the block runs; nothing runs after it."""
    environment = prepared(folder)
    with (folder / "stand-in.log").open("wb") as output:
        stand_in = subprocess.Popen(
            [sys.executable, "-m", "rehearsal"],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until((folder / "home" / "rehearsals" / "kept.json").is_file, alive(stand_in))
        yield Place(folder, environment=environment, stand_in=psutil.Process(stand_in.pid))
    finally:
        started = psutil.Process(stand_in.pid).children(recursive=True)
        stand_in.send_signal(signal.SIGTERM)
        assert stand_in.wait(60) == 0
        assert psutil.wait_procs(started, timeout=20)[1] == []


def prepared(folder: Path) -> dict[str, str]:
    """Write pictures and configuration; the environment of commands that use them."""
    write_image_folder(folder / "images")
    (folder / "tiny.yaml").write_text(CONFIG)
    return {**os.environ, "DARKROOM_HOME": str(folder / "home"), "HOME": str(folder / "user")}


def until(look: Callable[[], T], sound: Callable[[], bool] = lambda: True) -> T:
    """Look again and again until there is something; `sound` says whether there is hope."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (found := look()):
        assert sound(), "it ended before"
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return found


def alive(process: "subprocess.Popen[bytes]") -> Callable[[], bool]:
    return lambda: process.poll() is None


def statuses(records: Sequence[Record]) -> list[str]:
    return sorted(record.status for record in records)


def _runs_pipeline(record: Record) -> bool:
    return record.tags.get("darkroom:kind") == "orchestration"


def _variable(process: psutil.Process) -> str:
    try:
        return process.environ().get("TRAINING_JOB_NAME", "")
    except psutil.Error:
        return ""
