"""Checkpoints: whole or absent, and never another training's."""

import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from darkroom.base.errors import DarkroomError
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.training.checkpoints import (
    CHECKPOINT_FILE,
    BrokenCheckpointError,
    Checkpoint,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)

EPOCH = EpochMetrics(
    epoch=1,
    learning_rate=0.1,
    train_loss=1 / 3,
    train_accuracy=0.5,
    validation={"accuracy": 0.25},
    images_per_second=100,
    seconds=2,
)


def checkpoint(*, value: float = 1.0) -> Checkpoint:
    return Checkpoint(
        identity="this",
        history=[EPOCH],
        model={"layer.weight": torch.full((2, 3), value), "count": torch.tensor(7)},
        optimizer={"0/exp_avg": torch.arange(6.0).reshape(2, 3), "0/step": torch.tensor(4.0)},
        best={"layer.weight": torch.zeros(2, 3)},
        scaler={"scale": 1024.0},
    )


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = checkpoint()
    write_checkpoint(written, folder=tmp_path)
    read = read_checkpoint(tmp_path, identity="this")
    assert read is not None
    assert (read.history, read.scaler) == (written.history, written.scaler)
    for part in ("model", "optimizer", "best"):
        expected = getattr(written, part)
        assert getattr(read, part).keys() == expected.keys()
        assert all(torch.equal(tensor, expected[n]) for n, tensor in getattr(read, part).items())
    assert (tmp_path / CHECKPOINT_FILE).stat().st_mode & 0o777 == 0o644


def test_no_checkpoint_and_another_training_s_are_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path, identity="this") is None
    write_checkpoint(checkpoint(), folder=tmp_path)
    assert read_checkpoint(tmp_path, identity="other") is None


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "flipped byte"])
def test_a_damaged_checkpoint_is_recognised(tmp_path: Path, damage: str) -> None:
    write_checkpoint(checkpoint(), folder=tmp_path)
    path = tmp_path / CHECKPOINT_FILE
    content = path.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    damaged = {"cut": content[:-8], "empty": b"", "garbage": b"{}" * 99, "flipped byte": flipped}
    path.write_bytes(damaged[damage])
    with pytest.raises(BrokenCheckpointError):
        read_checkpoint(tmp_path, identity="this")


def test_a_full_disk_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(checkpoint(value=1.0), folder=tmp_path)

    def half_written(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("darkroom.training.checkpoints.save_file", half_written)
    with pytest.raises(DarkroomError, match=r"No space left on device.*free some space"):
        write_checkpoint(checkpoint(value=2.0), folder=tmp_path)
    read = read_checkpoint(tmp_path, identity="this")
    assert read is not None
    assert read.model["layer.weight"].unique().tolist() == [1.0]
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_an_optimiser_goes_on_as_if_it_had_never_stopped(name: str) -> None:
    def new() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        if name == "sgd":
            return model, torch.optim.SGD(model.parameters(), momentum=0.9, lr=0.1, fused=True)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def learn(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int) -> None:
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        for _ in range(steps):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()

    whole, optimizer = new()
    learn(whole, optimizer, steps=4)
    first, first_optimizer = new()
    learn(first, first_optimizer, steps=2)
    second, second_optimizer = new()
    second.load_state_dict(first.state_dict())
    stored = {
        key: tensor.contiguous() for key, tensor in optimizer_tensors(first_optimizer).items()
    }
    restore_optimizer(second_optimizer, stored)
    learn(second, second_optimizer, steps=2)
    assert torch.equal(second.weight, whole.weight)
    assert torch.equal(second.bias, whole.bias)
