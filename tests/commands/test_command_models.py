"""A model by any of its names, and what a command on it goes by: its own run's configuration."""

import json
import os
import shutil
from pathlib import Path

import pytest

from commands.models import CONFIG_FILE, FoundModel, find_model
from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.config import Config
from darkroom.config.loader import load_config, to_yaml
from darkroom.models.bundle import pack, read_bundle
from small_bundles import write_small_bundle


def left_by_run(name: str, *, experiment: str, source: str, image_size: int = 16) -> Path:
    """A run's folder, as a training leaves it; `latest` leads to it."""
    run = workspace() / "runs" / name
    write_small_bundle(run / "model", image_size=image_size)
    config = load_config(
        None, overrides=[f"tracking.experiment={experiment}", f"data.source={json.dumps(source)}"]
    )
    (run / CONFIG_FILE).write_text(to_yaml(config))
    latest = run.parent / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(name)
    return run


def settings(found: FoundModel, *overrides: str) -> Config:
    return found.settings(config=None, overrides=overrides, needs_data=True)


@pytest.fixture
def clothing() -> Path:
    return left_by_run("clothing-1", experiment="clothing", source="/photos/clothing")


@pytest.mark.parametrize("kind", ["newest", "name", "folder", "bundle"])
def test_every_name_of_a_model_leads_to_its_run(kind: str, clothing: Path) -> None:
    name = {
        "newest": None,
        "name": "clothing-1",
        "folder": str(clothing),
        "bundle": str(clothing / "model"),
    }[kind]
    found = find_model(name)
    assert (found.run, read_bundle(found.path).metadata.classes[0]) == (clothing, "blue")
    config = settings(found, "training.epochs=7")
    assert (config.tracking.experiment, config.data.source) == ("clothing", "/photos/clothing")
    assert config.training.epochs == 7


def test_a_copied_or_packed_bundle_is_known_by_its_weights(clothing: Path, tmp_path: Path) -> None:
    archive = tmp_path / "given" / "model.tar.gz"
    archive.parent.mkdir()
    pack(clothing / "model", archive)
    shutil.copytree(clothing / "model", tmp_path / "copy")
    for path in (archive, tmp_path / "copy"):
        assert find_model(str(path)).run == clothing


def test_a_bundle_of_elsewhere_has_no_data_to_fall_back_on(tmp_path: Path) -> None:
    found = find_model(str(write_small_bundle(tmp_path / "foreign")))
    assert found.run is None
    with pytest.raises(UserError, match="name a SOURCE of images, or give the --config"):
        settings(found)
    assert found.settings(config=None, overrides=()).tracking.experiment == "darkroom"


def test_a_run_older_than_its_configuration_is_read_from_its_summary(clothing: Path) -> None:
    (clothing / CONFIG_FILE).unlink()
    summary = {
        "data": {"source": "/old"},
        "run": {"experiment": "old"},
        "artifacts": {"registered_model": {"name": "old-model"}},
    }
    (clothing / "summary.json").write_text(json.dumps(summary))
    config = settings(find_model("clothing-1"))
    assert (config.data.source, config.tracking.model_name) == ("/old", "old-model")


def test_a_named_configuration_wins(clothing: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("tracking: {experiment: mine}")
    config = find_model(None).settings(config=path, overrides=())
    assert config.tracking.experiment == "mine"
    assert os.path.samefile(find_model(None).run or "", clothing)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("clothing-2", "did you mean 'clothing-1'?"),
        ("/absent", "no model bundle at '/absent'"),
        ("models:/clothing/1", "no model registry yet"),
        ("models:/a/b/c", "names no registered model"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_an_unknown_model_is_answered_with_what_there_is(
    name: str, told: str, clothing: Path
) -> None:
    with pytest.raises(UserError) as caught:
        find_model(name)
    assert told in str(caught.value)
    assert clothing.is_dir()
