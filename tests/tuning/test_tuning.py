"""The search for hyperparameters, with trainings that only pretend."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import Hyperparameters
from darkroom.config.debugging import Debugging
from darkroom.config.tuning import (
    Choices,
    FloatChoices,
    FloatRange,
    IntRange,
    SearchSpace,
    TuningConfig,
)
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.training.checkpoints import training_folder
from darkroom.tuning.results import Trial, TuningResult
from darkroom.tuning.search import sampler, tune

HYPERPARAMETERS = Hyperparameters(epochs=4, warmup_epochs=1, weights="none")


@dataclass
class Training:
    """A pretended training: the nearer the learning rate is to 0.003, the better."""

    calls: list[Hyperparameters] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    raises: dict[int, BaseException] = field(default_factory=dict)
    """By call number: what the training fails with, in its second epoch."""
    score: Callable[[Hyperparameters], float] = lambda h: (
        1 / (1 + abs(math.log(h.learning_rate / 0.003)))
    )

    def __call__(
        self, dataset: Dataset, *, hyperparameters: Hyperparameters, folder: Path, cache: Path,
        debugging: Debugging, on_epoch: Any,
    ) -> Any:  # fmt: skip
        number = len(self.calls)
        self.calls.append(hyperparameters)
        self.folders.append(folder)
        folder.mkdir(parents=True, exist_ok=True)
        score = self.score(hyperparameters)
        for epoch in range(1, hyperparameters.epochs + 1):
            if epoch == 2 and number in self.raises:
                (folder / "checkpoint").touch()
                raise self.raises[number]
            on_epoch(
                SimpleNamespace(
                    epoch=epoch,
                    train_loss=1.0,
                    images_per_second=9.0,
                    validation={"f1_macro": score, "log_loss": 1 - score},
                )
            )
        return SimpleNamespace(metrics={"f1_macro": score, "log_loss": 1 - score})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    records = [ImageRecord(f"{name}.png", name, "train", 1, name) for name in ("cat", "dog")]
    return make_dataset(records, root=tmp_path, source="pretended")


@pytest.fixture
def search(dataset: Dataset, tmp_path: Path) -> Callable[..., TuningResult]:
    def run(training: Training, *, folder: str = "work", **settings: Any) -> TuningResult:
        callbacks = {k: settings.pop(k) for k in ("on_trial", "on_epoch") if k in settings}
        return tune(
            dataset,
            hyperparameters=settings.pop("hyperparameters", HYPERPARAMETERS),
            tuning=TuningConfig(**settings),
            folder=tmp_path / folder,
            cache=tmp_path / "cache",
            run_trial=training,
            **callbacks,
        )

    return run


def test_the_best_values_are_those_of_the_best_trial(search: Any) -> None:
    started = time.monotonic()
    result = search(Training(), trials=6)
    assert 0 < sum(trial.seconds for trial in result.trials) < time.monotonic() - started
    best = max((t for t in result.trials if t.state == "complete"), key=lambda t: t.objective)
    assert result.best == best.values
    assert result.best_value == best.objective
    assert (result.objective, result.direction) == ("f1_macro", "maximize")
    assert [trial.number for trial in result.trials] == list(range(6))


def test_a_loss_is_minimised(search: Any) -> None:
    result = search(Training(), trials=5, objective="log_loss", pruning="none")
    assert result.direction == "minimize"
    assert result.best_value == min(trial.objective for trial in result.trials)


def test_values_are_typed_and_within_the_search_space(search: Any) -> None:
    training = Training()
    result = search(training, trials=5)
    for trial, used in zip(result.trials, training.calls, strict=True):
        assert {name: type(value) for name, value in trial.values.items()} == {
            "learning_rate": float,
            "batch_size": int,
            "weight_decay": float,
            "epochs": int,
        }
        assert used.model_dump().items() >= trial.values.items()
        assert 1e-4 <= used.learning_rate <= 1e-2
        assert used.batch_size in (16, 32, 64)
        assert 3 <= used.epochs <= 10
    assert TuningResult.model_validate_json(result.model_dump_json()) == result


def test_a_dimension_that_is_null_keeps_the_configured_value(search: Any) -> None:
    space = SearchSpace(batch_size=None, weight_decay=None, epochs=None)
    training = Training()
    result = search(training, trials=2, search_space=space)
    assert list(result.best) == ["learning_rate"]
    assert {used.epochs for used in training.calls} == {4}


def test_the_warm_up_shrinks_to_fit_the_epochs(search: Any) -> None:
    training = Training()
    space = SearchSpace(epochs=IntRange(low=1, high=1))
    search(training, trials=1, search_space=space)
    assert training.calls[0].warmup_epochs == 0.5


@pytest.mark.parametrize("strategy", ["tpe", "random"])
def test_the_same_seed_proposes_the_same_values(search: Any, strategy: str) -> None:
    first, again = (
        search(Training(), folder=folder, trials=5, strategy=strategy) for folder in ("a", "b")
    )
    assert [trial.values for trial in first.trials] == [trial.values for trial in again.trials]
    other = search(
        Training(),
        folder="c",
        trials=5,
        strategy=strategy,
        hyperparameters=HYPERPARAMETERS.replace(seed=7),
    )
    assert other.trials[0].values != first.trials[0].values
    distinct = {trial.values["learning_rate"] for trial in first.trials}
    assert len(distinct) == 5


def test_a_bad_trial_is_pruned_after_the_warm_up_trials(search: Any) -> None:
    scores = iter([0.8, 0.9, 0.1, 0.95])
    training = Training(score=lambda h: next(scores))
    result = search(training, trials=4, pruning_warmup_trials=2)
    assert [trial.state for trial in result.trials] == [
        "complete", "complete", "pruned", "complete",
    ]  # fmt: skip
    assert result.trials[2].epochs == 1
    assert result.trials[2].objective == pytest.approx(0.1)
    assert result.best_value == pytest.approx(0.95)


def test_without_pruning_every_trial_runs_to_its_end(search: Any) -> None:
    scores = iter([0.8, 0.9, 0.1, 0.95])
    result = search(Training(score=lambda h: next(scores)), trials=4, pruning="none")
    assert {trial.state for trial in result.trials} == {"complete"}


@pytest.mark.parametrize(
    "failure", [DarkroomError("the loss is not finite"), RuntimeError("out of memory")]
)
def test_a_training_that_fails_is_a_failed_trial(search: Any, failure: Exception) -> None:
    seen: list[Trial] = []
    result = search(Training(raises={0: failure}), trials=3, on_trial=seen.append)
    assert [trial.state for trial in result.trials] == ["failed", "complete", "complete"]
    assert result.trials[0].error == str(failure)
    assert (result.trials[0].objective, result.trials[0].epochs) == (None, 1)
    assert seen == result.trials


def test_an_objective_that_is_no_number_is_a_failed_trial(search: Any) -> None:
    scores = iter([math.nan, 0.5])
    result = search(Training(score=lambda h: next(scores)), trials=2, pruning="none")
    assert [trial.state for trial in result.trials] == ["failed", "complete"]


def test_when_all_trials_fail_the_search_fails_and_the_next_starts_anew(search: Any) -> None:
    failing = Training(raises={n: DarkroomError("the loss is not finite") for n in range(2)})
    with pytest.raises(DarkroomError, match="all 2 trials failed: the loss is not finite"):
        search(failing, trials=2)
    assert len(search(Training(), trials=2).trials) == 2


def test_the_users_mistake_ends_the_search_at_once(search: Any) -> None:
    training = Training(raises={0: UserError("weights unavailable")})
    with pytest.raises(UserError, match="weights unavailable"):
        search(training, trials=3)
    assert len(training.calls) == 1


def test_a_killed_search_goes_on_and_ends_like_one_that_was_not(search: Any) -> None:
    whole = search(Training(), folder="whole", trials=5)
    killed = Training(raises={2: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        search(killed, trials=5)
    seen: list[Trial] = []
    rest = Training()
    result = search(rest, trials=5, on_trial=seen.append)
    assert [trial.values for trial in result.trials] == [trial.values for trial in whole.trials]
    assert result.best == whole.best
    assert [trial.number for trial in seen] == [2, 3, 4]
    assert rest.folders[0] == killed.folders[2]  # where its checkpoint lies
    assert rest.calls[0] == killed.calls[2]


def test_a_search_that_is_killed_twice_still_has_each_trial_once(search: Any) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(Training(raises={0: KeyboardInterrupt()}), trials=3)
    result = search(Training(), trials=3)
    assert [trial.number for trial in result.trials] == [0, 1, 2]
    assert [trial.state for trial in result.trials] == ["complete"] * 3


def test_more_trials_extend_a_search(search: Any) -> None:
    first = search(Training(), trials=2)
    training = Training()
    result = search(training, trials=4)
    assert len(training.calls) == 2
    assert [t.values for t in result.trials[:2]] == [t.values for t in first.trials]


def test_another_search_in_the_same_folder_starts_from_nothing(search: Any) -> None:
    search(Training(), trials=2)
    training = Training()
    space = SearchSpace(
        learning_rate=FloatRange(low=0.1, high=0.2), batch_size=Choices(choices=(8,))
    )
    result = search(training, trials=2, search_space=space)
    assert len(training.calls) == 2
    assert result.best["batch_size"] == 8


def test_no_trial_starts_after_the_time_is_over(search: Any) -> None:
    result = search(Training(), trials=50, timeout_seconds=1e-9)
    assert len(result.trials) == 1


def test_epochs_are_reported_with_the_number_of_their_trial(search: Any) -> None:
    seen: list[tuple[int, int]] = []
    space = SearchSpace(epochs=IntRange(low=2, high=2))
    search(
        Training(),
        trials=2,
        pruning="none",
        search_space=space,
        on_epoch=lambda trial, epoch: seen.append((trial, epoch.epoch)),
    )
    assert seen == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_what_trials_have_written_is_removed_but_not_the_study(search: Any, tmp_path: Path) -> None:
    search(Training(), trials=2)
    left = [path.name for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert [name for name in left if not name.endswith(".lock")] == ["study.log"]


@pytest.mark.parametrize("trials", [1, 4])
def test_the_best_trials_checkpoint_lies_where_the_final_training_looks(
    search: Any, dataset: Dataset, tmp_path: Path, trials: int
) -> None:
    class Writing(Training):
        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            result = super().__call__(*arguments, **keywords)
            rate = keywords["hyperparameters"].learning_rate
            (keywords["folder"] / "checkpoint").write_text(repr(rate))
            return result

    result = search(Writing(), trials=trials, pruning="none")
    place = training_folder(
        tmp_path / "work",
        dataset=dataset,
        hyperparameters=HYPERPARAMETERS.replace(**result.best),
    )
    assert (place / "checkpoint").read_text() == repr(result.best["learning_rate"])
    assert len(list((tmp_path / "work").rglob("checkpoint"))) == 1


def test_trials_run_in_one_process_whatever_the_training_does(search: Any) -> None:
    training = Training()
    search(training, trials=1, hyperparameters=HYPERPARAMETERS.replace(processes=4))
    assert training.calls[0].processes == 1


def test_each_strategy_has_its_sampler() -> None:
    kinds = {name: type(sampler(TuningConfig(strategy=name), seed=1)) for name in ("tpe", "random")}
    assert kinds == {
        "tpe": optuna.samplers.TPESampler,
        "random": optuna.samplers.RandomSampler,
    }


GRID = SearchSpace(
    learning_rate=None,
    weight_decay=None,
    batch_size=Choices(choices=(16, 32)),
    epochs=IntRange(low=2, high=4),
)


def test_a_grid_tries_every_combination_once(search: Any) -> None:
    result = search(Training(), strategy="grid", search_space=GRID, pruning="none")
    tried = [(trial.values["batch_size"], trial.values["epochs"]) for trial in result.trials]
    assert tried == [(16, 2), (16, 3), (16, 4), (32, 2), (32, 3), (32, 4)]


FRACTIONS = SearchSpace(
    learning_rate=FloatChoices(choices=(0.1 + 0.2, 1e-3, 1.0)),
    weight_decay=FloatChoices(choices=(0.0, 5e-324)),
    batch_size=None,
    epochs=Choices(choices=(3, 2)),
)
"""Values that lose something wherever a digit or a type is lost."""


def test_a_grid_of_fractions_trains_with_exactly_these(search: Any) -> None:
    training = Training()
    result = search(training, strategy="grid", search_space=FRACTIONS, pruning="none")
    tried = [tuple(trial.values.values()) for trial in result.trials]
    wanted = list(product((0.1 + 0.2, 1e-3, 1.0), (0.0, 5e-324), (3, 2)))
    assert repr(tried) == repr(wanted)
    assert [(h.learning_rate, h.weight_decay, h.epochs) for h in training.calls] == wanted
    assert TuningResult.model_validate_json(result.model_dump_json()) == result


def test_a_grid_of_fractions_goes_on_after_a_kill(search: Any) -> None:
    settings: Any = {"strategy": "grid", "search_space": FRACTIONS, "pruning": "none"}
    with pytest.raises(KeyboardInterrupt):
        search(Training(raises={5: KeyboardInterrupt()}), **settings)
    tried = [tuple(trial.values.values()) for trial in search(Training(), **settings).trials]
    assert repr(tried) == repr(list(product((0.1 + 0.2, 1e-3, 1.0), (0.0, 5e-324), (3, 2))))


@pytest.mark.parametrize("strategy", ["tpe", "random", "hyperband"])
def test_every_strategy_takes_fractions_to_choose_from(search: Any, strategy: str) -> None:
    epochs = {"epochs": None} if strategy == "hyperband" else {}
    space = FRACTIONS.model_copy(update=epochs)
    result = search(Training(), strategy=strategy, search_space=space, trials=12)
    rates = {trial.values["learning_rate"] for trial in result.trials}
    assert rates <= {0.1 + 0.2, 1e-3, 1.0}
    assert len(rates) > 1


def test_a_trial_is_told_with_whole_numbers_as_they_are() -> None:
    values = {"batch_size": 1024, "learning_rate": 0.00123456}
    trial = Trial(number=0, values=values, state="complete", objective=1, epochs=1, seconds=1)
    assert trial.in_words("f1") == "trial 0: f1 1.0000 (batch_size 1024, learning_rate 0.00123)"


def test_a_grid_that_was_killed_goes_on_without_trying_anything_twice(search: Any) -> None:
    settings: Any = {"strategy": "grid", "search_space": GRID, "pruning": "none"}
    with pytest.raises(KeyboardInterrupt):
        search(Training(raises={2: KeyboardInterrupt()}), **settings)
    result = search(Training(), **settings)
    tried = {(trial.values["batch_size"], trial.values["epochs"]) for trial in result.trials}
    assert len(result.trials) == len(tried) == 6


def test_a_grid_has_no_continuous_dimension(search: Any) -> None:
    with pytest.raises(
        UserError, match=r"learning_rate: from 0\.0001 to 0\.01 there are .*choices="
    ):
        search(Training(), strategy="grid")


def test_hyperband_ends_trials_at_its_rungs(search: Any) -> None:
    space = SearchSpace(epochs=None)
    result = search(
        Training(),
        strategy="hyperband",
        trials=24,
        search_space=space,
        hyperparameters=HYPERPARAMETERS.replace(epochs=9),
    )
    ended = {(trial.state, trial.epochs) for trial in result.trials}
    assert ended == {("complete", 9), ("pruned", 1), ("pruned", 3)}  # the rungs, by powers of 3
    assert result.best_value == max(t.objective for t in result.trials if t.state == "complete")


def test_no_trial_follows_one_that_reaches_the_target(search: Any) -> None:
    unlimited = search(Training(), folder="a", trials=6, pruning="none")
    target = sorted(trial.objective for trial in unlimited.trials)[3]
    result = search(Training(), folder="b", trials=6, pruning="none", target_value=target)
    assert len(result.trials) < 6
    assert result.best_value >= target
    assert all(trial.objective < target for trial in result.trials[:-1])


def test_a_target_of_a_loss_is_reached_from_above(search: Any) -> None:
    result = search(Training(), trials=5, objective="log_loss", target_value=1.0)
    assert len(result.trials) == 1


def test_patience_is_counted_in_trials_since_the_best_one(search: Any) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.6, 0.2])
    training = Training(score=lambda _: next(scores))
    result = search(training, trials=6, pruning="none", patience_trials=2)
    assert [trial.objective for trial in result.trials] == [0.1, 0.5, 0.4, 0.3]
    again = search(training, trials=6, pruning="none", patience_trials=3)
    assert [trial.objective for trial in again.trials] == [0.1, 0.5, 0.4, 0.3, 0.6, 0.2]
