"""What `check` foresees of a training."""

import shutil
from collections import namedtuple

import pytest

from command_line import run
from darkroom.config.loader import load_config
from darkroom.training import requirements
from darkroom.training.requirements import Foresight, foresee

_Usage = namedtuple("_Usage", "total used free")


@pytest.fixture(autouse=True)
def speed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured by one test alone."""
    if "measured" not in request.node.name:
        monkeypatch.setattr(
            requirements, "_seconds_per_image", lambda *_args, **_size: (0.01, 0.003)
        )


def seen(*overrides: str, images: int | None = 300, stack: str = "local") -> Foresight:
    small = ["model.weights=none", "model.architecture=resnet18", "model.image_size=32"]
    config = load_config(None, overrides=[*small, *overrides])
    return foresee(config, images=images, stack=stack)


def test_a_training_that_can_run_has_no_problems() -> None:
    assert seen().problems == ()


def test_weights_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "imagenet_problem", lambda _architecture: "no network")
    (problem,) = seen("model.weights=imagenet").problems
    assert "resnet18-" in problem
    assert "no network" in problem
    assert seen("model.weights=imagenet", stack="sagemaker").problems == ()


@pytest.mark.parametrize(
    ("sizes", "images", "is_wrong"),
    [([1], 300, True), ([2], 7, True), ([8, 1], 300, True), ([2], 8, False), ([64], 300, False)],
)
def test_a_batch_that_batch_norm_cannot_work_on(
    sizes: list[int], images: int, is_wrong: bool
) -> None:
    found = seen(f"tuning.search_space.batch_size.choices={sizes}", images=images).problems
    assert ["batch-norm" in problem for problem in found] == [True] * is_wrong


def test_one_image_a_step_is_fine_for_a_network_without_batch_norm() -> None:
    bare = ("model.architecture=squeezenet1_1", "tuning.search_space.batch_size.choices=[1]")
    assert seen(*bare).problems == ()


def test_a_batch_larger_than_the_data_is_told() -> None:
    assert any("an epoch is one step" in line for line in seen(images=40).lines)


def test_an_image_size_that_the_network_cannot_work_on() -> None:
    found = seen("model.architecture=vit_b_16", "model.image_size=100").problems
    assert len(found) == 1
    assert "224 suits every architecture" in found[0]


def test_a_disk_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = _Usage(10**12, 0, 3 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert seen(images=300).problems == ()
    (problem,) = seen(images=10**6).problems
    assert "3.0 GB are free" in problem


def test_the_speed_is_measured() -> None:
    assert "images/s" in seen().lines[0]


def test_the_duration_grows_with_the_images() -> None:
    few, many = (seen(images=count).lines[0] for count in (1_000, 1_000_000))
    assert "about 5 minutes" in few
    assert "about 3 days" in many


@pytest.mark.slow
def test_check_tells_what_it_foresees_by_the_front_door(image_folder) -> None:
    shown = run(
        "check",
        *("--data", str(image_folder(per_class=4))),
        *("--set", "model.weights=none", "--set", "tuning.search_space.batch_size.choices=[1]"),
    )
    assert shown.returncode == 2
    assert "batch-norm" in shown.stderr
    assert "Duration " in shown.stdout
    assert "Disk " in shown.stdout
