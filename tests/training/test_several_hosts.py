"""Two hosts of one job, both this machine: the `train` program, once for each."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from darkroom.base.errors import UserError
from darkroom.config import Hyperparameters
from darkroom.config.sections import Split
from darkroom.data.dataset import Dataset
from darkroom.data.shards import pack_shard, plan_shards
from darkroom.models.bundle import read_metadata
from darkroom.training import channels
from darkroom.training import program as training_program
from darkroom.training.channels import read_channels
from darkroom.training.hyperparameters import to_strings
from pictures import write_image_folder

pytestmark = pytest.mark.slow

HOSTS = ("localhost", "127.0.0.1")
HYPERPARAMETERS = Hyperparameters(
    architecture="squeezenet1_1",
    weights="none",
    image_size=32,
    epochs=3,
    batch_size=8,
    augmentation="none",
    learning_rate=1e-3,
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    root = write_image_folder(tmp_path / "images", splits=("train", "validation"), per_class=16)
    return read_channels(root, seed=1, store=tmp_path / "store").dataset


def write_job(
    base: Path,
    *,
    dataset: Dataset,
    hosts: tuple[str, ...] = (),
    host: int = 0,
    processes: int = 1,
    sharded: bool = False,
) -> Path:
    """What SageMaker would put before one host of a job."""
    data, config = base / "input" / "data", base / "input" / "config"
    for folder in (data / "manifest", data / "shards", data / "evaluation_shards", config):
        folder.mkdir(parents=True)
    (data / "manifest" / "manifest.json").write_text(replace(dataset, root=Path()).to_json())
    write_shards(dataset, split="train", folder=data / "shards")
    write_shards(dataset, split="validation", folder=data / "evaluation_shards")
    if sharded:
        for number, path in enumerate(sorted((data / "shards").iterdir())):
            if number % len(hosts) != host:
                path.unlink()
    files: dict[str, Any] = {
        "hyperparameters": to_strings(HYPERPARAMETERS.replace(processes=processes)),
        "inputdataconfig": {
            "shards": {"S3DistributionType": "ShardedByS3Key" if sharded else "FullyReplicated"}
        },
    }
    if hosts:
        files["resourceconfig"] = {
            "current_host": hosts[host],
            "hosts": list(hosts),
            "network_interface_name": "lo0" if sys.platform == "darwin" else "lo",
        }
    for name, content in files.items():
        (config / f"{name}.json").write_text(json.dumps(content))
    return base


def write_shards(dataset: Dataset, *, split: Split, folder: Path) -> None:
    for shard in plan_shards(dataset, split=split):
        (folder / shard.name).write_bytes(pack_shard(shard, root=dataset.root).getbuffer())


def run_hosts(*bases: Path) -> list[int]:
    """Run the program for each base folder at once; the exit codes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "darkroom.training.program", "train"],
            env=os.environ | {"SAGEMAKER_BASE_DIR": str(base), "MASTER_PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for base in bases
    ]
    try:
        return [process.wait(200) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def history_of(base: Path) -> list[dict[str, Any]]:
    epochs: list[dict[str, Any]] = json.loads((base / "output" / "history.json").read_text())[
        "epochs"
    ]
    return epochs


def write_hosts(tmp_path: Path, *, dataset: Dataset, sharded: bool) -> list[Path]:
    return [
        write_job(tmp_path / f"host{n}", dataset=dataset, hosts=HOSTS, host=n, sharded=sharded)
        for n in range(2)
    ]


# In the shards of a job.


def test_the_shards_of_a_job_are_its_data_set(dataset: Dataset, tmp_path: Path) -> None:
    base = write_job(tmp_path / "job", dataset=dataset)
    order = training_program.read_job(channels.JobPaths.at(base))
    assert order.data.held is None
    assert order.data.dataset.records == dataset.records
    assert order.data.dataset.fingerprint == dataset.fingerprint
    assert all(order.data.dataset.file(record).is_file() for record in dataset.records)


def test_in_a_container_all_that_is_large_lies_on_the_volume(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_job(tmp_path / "opt" / "ml", dataset=dataset)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    temporary = tmp_path / "tmp"
    monkeypatch.setattr(channels, "CONTAINER_BASE", base)
    monkeypatch.setattr(channels, "CONTAINER_SCRATCH", temporary / "darkroom")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    temporary.mkdir()
    made: list[Path] = []
    make = os.mkdir

    def watched(path: str, *arguments: Any, **options: Any) -> None:
        make(path, *arguments, **options)
        made.append(Path(path))

    monkeypatch.setattr(os, "mkdir", watched)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # of this process, which goes on
    assert training_program.main(["train"]) == 0
    mounts = [temporary, *(base / name for name in ("input", "checkpoints", "model", "output"))]
    elsewhere = [path for path in made if not any(path.is_relative_to(m) for m in mounts)]
    assert elsewhere == []
    assert {path.name for path in base.iterdir()} <= {mount.name for mount in mounts}
    assert (temporary / "darkroom" / "cache").is_dir()
    assert any(path.name.startswith(".packing-") for path in made)


def test_locally_the_cache_stays_below_the_base_folder(tmp_path: Path) -> None:
    job = channels.JobPaths.at(tmp_path)
    assert job.cache == tmp_path / "cache"
    assert channels.JobPaths.at(Path("/opt/ml")).cache == Path("/tmp/darkroom/cache")


def test_a_host_knows_which_part_of_the_images_it_has(dataset: Dataset, tmp_path: Path) -> None:
    held: list[str] = []
    for base in write_hosts(tmp_path, dataset=dataset, sharded=True):
        order = training_program.read_job(channels.JobPaths.at(base))
        assert order.data.dataset.records == dataset.records
        assert order.data.held is not None
        assert {record.path for record in dataset.split("validation")} <= order.data.held
        held += [record.path for record in dataset.split("train") if record.path in order.data.held]
    assert sorted(held) == sorted(record.path for record in dataset.split("train"))


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ("shards", "training images"),
        ("evaluation_shards", "validation images"),
        ("manifest", "has no manifest.json"),
    ],
)
def test_what_is_missing_in_a_channel_is_said(
    dataset: Dataset, tmp_path: Path, channel: str, words: str
) -> None:
    base = write_job(tmp_path / "job", dataset=dataset)
    next((base / "input" / "data" / channel).iterdir()).unlink()
    with pytest.raises(UserError, match=words):
        training_program.read_job(channels.JobPaths.at(base))


def test_the_failure_of_a_host_names_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_job(tmp_path / "job", dataset=dataset, hosts=("algo-1", "algo-2"), host=1)
    damaged = next((base / "input" / "data" / "shards").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:700])
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    monkeypatch.setattr(training_program.signal, "signal", lambda *_: None)
    assert training_program.main(["train"]) == 2
    failure = (base / "output" / "failure").read_text()
    assert failure.startswith(f"host 'algo-2': shard {str(damaged)!r} is damaged")


# Two hosts.


def test_two_hosts_train_as_two_processes_of_one(dataset: Dataset, tmp_path: Path) -> None:
    one = write_job(tmp_path / "one", dataset=dataset, processes=2)
    two = write_hosts(tmp_path, dataset=dataset, sharded=False)
    assert run_hosts(one) == [0]
    assert run_hosts(*two) == [0, 0]
    pairs = list(zip(history_of(two[0]), history_of(one), strict=True))
    assert len(pairs) == 3
    for ours, expected in pairs:
        assert ours["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)
        assert ours["validation"] == pytest.approx(expected["validation"], rel=1e-4)
    assert read_metadata(two[0] / "model").classes == dataset.classes
    assert list((two[1] / "model").iterdir()) == []
    assert not (two[1] / "output" / "history.json").exists()
    assert not (two[1] / "checkpoints").exists()
    # The second host has no checkpoint, and goes on from that of the first all the same.
    assert run_hosts(*two) == [0, 0]
    assert history_of(two[0]) == [ours for ours, _ in pairs]


def test_hosts_with_a_part_of_the_images_each_learn_from_all(
    dataset: Dataset, tmp_path: Path
) -> None:
    hosts = write_hosts(tmp_path, dataset=dataset, sharded=True)
    assert run_hosts(*hosts) == [0, 0]
    history = history_of(hosts[0])
    assert len(history) == 3
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    metadata = read_metadata(hosts[0] / "model")
    assert metadata.data_fingerprint == dataset.fingerprint
    assert list((hosts[1] / "model").iterdir()) == []


def test_the_host_that_failed_says_why_and_the_other_that_it_was_not_the_first(
    tmp_path: Path,
) -> None:
    root = write_image_folder(tmp_path / "images", splits=("train", "validation"), per_class=16)
    (root / "train" / "red" / "0007.png").write_bytes(b"no picture")
    dataset = read_channels(root, seed=1, store=tmp_path / "store").dataset
    hosts = write_hosts(tmp_path, dataset=dataset, sharded=True)
    assert sorted(run_hosts(*hosts)) == [1, 2]
    failures = [(base / "output" / "failure").read_text() for base in hosts]
    guilty = next(n for n, text in enumerate(failures) if "0007.png" in text)
    assert failures[guilty].startswith(f"host {HOSTS[guilty]!r}: ")
    assert "cannot be decoded" in failures[guilty]
    assert failures[1 - guilty].startswith(
        f"host {HOSTS[1 - guilty]!r}: another process of this training failed"
    )
    assert failures[1 - guilty].count("host '") == 1
