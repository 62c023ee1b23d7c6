"""Every committed configuration loads, and says in its header how it is used."""

from pathlib import Path

import pytest

from checkout import CHECKOUT
from darkroom.config.loader import load_config

CONFIGS = CHECKOUT / "configs"
FILES = sorted(CONFIGS.rglob("*.y*ml"))


def test_the_three_committed_configurations_are_found() -> None:
    assert {"digits.yaml", "clothing.yaml", "dogs.yaml"} <= {file.name for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_committed_configuration_loads(file: Path) -> None:
    config = load_config(file)

    assert config.tuning.trials >= 4
    assert config.tracking.model_name == file.stem


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_header_names_the_command_an_override_and_the_expectation(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    header = "\n".join(lines[: lines.index("")])

    assert "python run.py --stack local" in header
    assert "--set " in header
    assert "Expected" in header


def test_the_default_job_never_mirrors_digits_and_needs_no_network() -> None:
    config = load_config(CONFIGS / "digits.yaml")

    assert config.data.source == "digits"
    assert config.training.augmentation != "crop_flip"
    assert config.model.weights == "none"
