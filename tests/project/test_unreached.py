"""The check that everything which is written is reached."""

from pathlib import Path

import pytest

from checks.unreached import CHECKOUT, PACKAGES, unreached_names, unread_keys

_CONFIG = """
from pydantic import BaseModel, model_validator

class Section(BaseModel):
    pass

class Training(Section):
    epochs: int = 1
    "Read."
    patience: int = 2
    "Only validated."
    rate: float | None = None
    "Read through a subclass."
    @property
    def halved(self) -> float:
        return self.epochs / 2
    @model_validator(mode="after")
    def _positive(self) -> "Training":
        assert self.patience
        return self

class Trial(Training):
    pass

class Whole(Section):
    training: Training = Training()
"""
_USE = """
from darkroom.config import Trial, Whole
def used(whole: Whole) -> float:
    return whole.training.halved + halve(Trial(rate=1.0))
def halve(trial: Trial) -> float:
    return trial.rate or 0.0
def forgotten() -> None: ...
def only_in_a_page() -> None: ...
def only_in_a_template() -> None: ...
def called_by_name() -> None: ...
PLACE = "darkroom.use:called_by_name"
used(Whole())
print(PLACE)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "darkroom" / "config").mkdir()
    (tmp_path / "darkroom" / "config" / "__init__.py").write_text(_CONFIG)
    (tmp_path / "darkroom" / "use.py").write_text(_USE)
    (tmp_path / "darkroom" / "templates").mkdir()
    (tmp_path / "darkroom" / "templates" / "page.html.j2").write_text("{{ x.only_in_a_template }}")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("```python\nonly_in_a_page()\n```\n")
    for name in ("README.md", "pyproject.toml", "run.py"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_function_that_nothing_calls_is_found(tree: Path) -> None:
    assert unreached_names(tree) == [
        "darkroom/use.py:7: nothing refers to the function 'forgotten'",
    ]


@pytest.mark.slow
def test_a_key_that_nothing_reads_is_found(tree: Path) -> None:
    assert unread_keys(tree) == [
        "darkroom/config/__init__.py:10: nothing reads the key 'patience' of Training",
    ]


def test_the_checked_packages_are_those_of_the_checkout() -> None:
    folders = {path.parent.name for path in CHECKOUT.glob("*/*.py")}
    assert folders - {"benchmarks", "checks", "docs", "tests"} == set(PACKAGES)
