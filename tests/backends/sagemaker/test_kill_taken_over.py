"""A job that a run which died has left belongs to the run that goes on with it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from darkroom.backends.sagemaker.cleanup import Selection, find
from darkroom.backends.sagemaker.retry import JobInterrupted
from darkroom.backends.sagemaker.training.job import run_training
from darkroom.config import Hyperparameters
from darkroom.data.dataset import Dataset
from pretended_jobs import Account, account
from small_trainings import write_dataset

pytestmark = pytest.mark.slow  # they start processes


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path / "images")


@pytest.fixture
def aws(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with account(tmp_path / "aws", dataset=dataset) as opened:
        opened.enter(monkeypatch)
        yield opened


def test_stopping_a_run_stops_the_training_that_it_took_over(
    aws: Account, dataset: Dataset, tmp_path: Path
) -> None:
    def interrupted(run: str, *, pause: Callable[[float], None]) -> str:
        with pytest.raises(JobInterrupted) as interruption:
            run_training(
                dataset,
                hyperparameters=Hyperparameters(epochs=4, weights="none"),
                site=replace(aws.site(environment={"PRETEND_PAUSE": "5"}), run=run),
                clients=aws.clients,
                folder=tmp_path,
                pause=pause,
            )
        return interruption.value.name

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    def of_run(run: str) -> list[str]:
        return [thing.name for thing in find(Selection(run=run), clients=aws.clients)]

    job = interrupted("died", pause=interrupt)
    assert of_run("died") == [job]
    assert interrupted("goes-on", pause=interrupt) == job
    assert of_run("goes-on") == [job]
    assert of_run("died") == []
