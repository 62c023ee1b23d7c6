"""Searches as managed tuning jobs, in a stand-in for AWS."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.backends.sagemaker.cleanup import remove
from darkroom.backends.sagemaker.retry import JobInterrupted
from darkroom.backends.sagemaker.training.job import run_training
from darkroom.backends.sagemaker.tuning.job import run_tuning
from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import Hyperparameters
from darkroom.config.tuning import Choices, FloatChoices, FloatRange, IntRange, TuningConfig
from darkroom.data.dataset import Dataset
from darkroom.tuning.results import Trial, TuningResult
from pretended_jobs import Account, account
from small_trainings import write_dataset

pytestmark = pytest.mark.slow  # they train

SPACE = {
    "learning_rate": FloatRange(low=1e-4, high=1e-1, log=True),
    "batch_size": Choices(choices=(16, 32)),
    "weight_decay": None,
    "epochs": IntRange(low=2, high=4),
}
SLOW = {"environment": {"PRETEND_PAUSE": "0.5"}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def opened(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with account(tmp_path_factory.mktemp("aws"), dataset=dataset) as opened:
        yield opened


@pytest.fixture
def aws(opened: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    opened.enter(monkeypatch)
    return opened


def briefly(seconds: float) -> None:
    time.sleep(min(seconds, 0.1))


def fixed(seed: int) -> Hyperparameters:
    """The values that are not searched; each test has its seed, and so jobs of its own."""
    return Hyperparameters(epochs=4, weights="none", seed=seed)


@pytest.fixture
def tune(aws: Account, dataset: Dataset) -> Any:
    def run(
        *,
        seed: int,
        pause: Any = briefly,
        config: Any = None,
        callbacks: Any = None,
        **settings: Any,
    ) -> TuningResult:
        return run_tuning(
            dataset,
            hyperparameters=fixed(seed),
            tuning=TuningConfig.model_validate(
                {"trials": 4, "search_space": SPACE, "pruning": "none"} | settings
            ),
            site=aws.site(**(config or {})),
            clients=aws.clients,
            pause=pause,
            **(callbacks or {}),
        )

    return run


def test_all_trials_are_followed_and_the_best_one_is_found(tune: Any) -> None:
    epochs: list[tuple[int, int]] = []
    ended: list[Trial] = []
    result = tune(
        seed=1,
        callbacks={
            "on_epoch": lambda number, epoch: epochs.append((number, epoch.epoch)),
            "on_trial": ended.append,
        },
    )
    assert [trial.number for trial in result.trials] == [0, 1, 2, 3]
    assert sorted(ended, key=lambda trial: trial.number) == result.trials
    assert sorted(epochs) == [
        (trial.number, epoch) for trial in result.trials for epoch in range(1, trial.epochs + 1)
    ]
    best = max(result.trials, key=lambda trial: trial.value)
    assert (result.best, result.best_value) == (best.values, best.objective)
    for trial in result.trials:
        assert {name: type(value) for name, value in trial.values.items()} == {
            "learning_rate": float,
            "batch_size": int,
            "epochs": int,
        }
        assert trial.epochs == trial.values["epochs"]
        assert trial.state == "complete"


def test_the_best_trial_is_the_final_training(
    tune: Any, aws: Account, dataset: Dataset, tmp_path: Path
) -> None:
    result = tune(seed=2)
    before = aws.jobs("darkroom-training-")
    trained = run_training(
        dataset,
        hyperparameters=fixed(2).replace(**result.best),
        site=aws.site(),
        clients=aws.clients,
        folder=tmp_path,
        pause=briefly,
    )
    assert trained.job.startswith("darkroom-tuning-")
    assert aws.jobs("darkroom-training-") == before
    assert trained.history[-1].validation["f1_macro"] == pytest.approx(result.best_value)


def test_the_same_search_is_not_paid_for_twice(tune: Any, aws: Account) -> None:
    first = tune(seed=2)
    jobs = aws.jobs("darkroom-tuning-")
    ended: list[Trial] = []
    assert tune(seed=2, callbacks={"on_trial": ended.append}) == first
    assert ended == first.trials
    assert aws.jobs("darkroom-tuning-") == jobs


def test_an_interrupted_search_is_found_again(tune: Any, aws: Account) -> None:
    left = iter(range(6))

    def pause(seconds: float) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        briefly(seconds)

    with pytest.raises(JobInterrupted) as interruption:
        tune(seed=3, pause=pause, config=SLOW)
    name = interruption.value.name
    assert ("tuning job", name) in [(job.kind, job.name) for job in aws.running()]
    result = tune(seed=3)
    assert len(result.trials) == len(aws.jobs(name)) == 4


def test_a_stopped_search_is_told_and_started_anew(tune: Any, aws: Account) -> None:
    def stop(number: int, epoch: object) -> None:
        for job in aws.running():
            remove(job, clients=aws.clients)

    with pytest.raises(DarkroomError, match=r"-1' was stopped\. The same command starts another"):
        tune(seed=4, config=SLOW, callbacks={"on_epoch": stop})
    assert len(tune(seed=4).trials) == 4


@pytest.mark.parametrize(("code", "kind"), [("1", DarkroomError), ("2", UserError)])
def test_a_search_without_a_complete_trial_says_why(
    tune: Any, code: str, kind: type[DarkroomError]
) -> None:
    failing = {"environment": {"PRETEND_FAIL": "no memory is left", "PRETEND_EXIT": code}}
    with pytest.raises(DarkroomError, match=r"all \d trials of the tuning job") as failure:
        tune(seed=10 + int(code), config=failing)
    assert type(failure.value) is kind
    assert "failed: no memory is left. Narrow tuning.search_space" in str(failure.value)
    assert str(failure.value).endswith("  something is wrong")


def test_a_grid_tries_every_combination(tune: Any) -> None:
    space = {"learning_rate": FloatChoices(choices=(1e-05, 0.1 + 0.2)), "batch_size": None}
    result = tune(seed=6, strategy="grid", search_space=SPACE | space)
    tried = sorted((one.values["learning_rate"], one.values["epochs"]) for one in result.trials)
    assert tried == [(rate, epochs) for rate in (1e-05, 0.1 + 0.2) for epochs in (2, 3, 4)]


def test_a_reached_target_ends_the_search(tune: Any) -> None:
    result = tune(seed=7, trials=8, target_value=0.01, config={"tuning": {"parallel_jobs": 1}})
    assert 1 <= len(result.trials) < 8


def test_hyperband_stops_who_falls_behind_and_nobody_at_the_last_line(tune: Any) -> None:
    lingering = {"PRETEND_PAUSE": "1", "PRETEND_LINGER": "1"}
    result = tune(
        seed=8,
        strategy="hyperband",
        trials=6,
        search_space=SPACE | {"epochs": None},
        config={"environment": lingering, "tuning": {"parallel_jobs": 6}},
    )
    pruned = [trial for trial in result.trials if trial.state == "pruned"]
    assert any(trial.epochs < 4 for trial in pruned)
    assert all(trial.objective is not None for trial in pruned if trial.epochs)
    assert result.best_value == max(t.value for t in result.trials if t.state == "complete")
