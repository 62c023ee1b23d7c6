"""Training in two processes ends where one process ends."""

import json
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import small_trainings
from darkroom.base.errors import UserError
from darkroom.training.distributed import ProcessGroup, process_group
from small_trainings import plain_training, run_training, write_dataset


def test_without_torchrun_there_is_one_process() -> None:
    with process_group() as group:
        assert (group.rank, group.size) == (0, 1)
        assert group.share(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
        assert group.sum(torch.tensor([2.0])).tolist() == [2.0]


def test_the_shares_of_a_batch_are_even_and_complete() -> None:
    shares = [
        ProcessGroup(rank=rank, size=3, device=torch.device("cpu")).share(np.arange(8)).tolist()
        for rank in range(3)
    ]
    assert shares == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_batches_too_small_for_the_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = ProcessGroup(rank=0, size=4, device=torch.device("cpu"))
    monkeypatch.setattr("darkroom.training.loop.process_group", lambda: nullcontext(group))
    dataset = write_dataset(tmp_path / "images")
    with pytest.raises(UserError, match=r"batch_size 6 .* raise it to at least 9, .* \(now 4\)"):
        run_training(dataset, home=tmp_path, batch_size=6)


@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one(tmp_path: Path) -> None:
    # The network has neither batch-norm nor dropout, which see a process's share alone.
    # What is left is the order in which float32 gradients are added up.
    dataset = write_dataset(tmp_path / "images")
    expected = plain_training(dataset, home=tmp_path / "one")
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
        *("--master-addr=127.0.0.1", f"--master-port={free_port()}"),
        *(small_trainings.__file__, str(dataset.root), str(tmp_path / "two"), "--plain"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "two" / "run" / "history.json").read_text())["epochs"]
    assert len(history) == len(expected.history) == 3
    for epoch, one in zip(history, expected.history, strict=True):
        assert epoch["train_loss"] == pytest.approx(one.train_loss, rel=1e-4)
        assert epoch["train_accuracy"] == one.train_accuracy
        assert epoch["validation"] == pytest.approx(one.validation, rel=1e-4)
    assert expected.history[-1].train_loss < 0.9 * expected.history[0].train_loss
    reports = [line for line in done.stdout.splitlines() if line.startswith("epoch=")]
    assert len(reports) == 3, "the first process alone reports"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
