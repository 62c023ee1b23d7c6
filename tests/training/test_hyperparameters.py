"""Hyperparameters as strings, both ways."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.base.errors import UserError
from darkroom.config import Hyperparameters
from darkroom.config.sections import ARCHITECTURES
from darkroom.training.hyperparameters import from_strings, to_strings

positive = st.floats(min_value=1e-12, max_value=10)
fraction = st.floats(min_value=0, max_value=1, exclude_max=True)

valid = st.builds(
    Hyperparameters,
    architecture=st.sampled_from(ARCHITECTURES),
    weights=st.text(min_size=1).filter(lambda text: not text.startswith('"')),
    fine_tune=st.sampled_from(["all", "head"]),
    image_size=st.integers(8, 1024),
    resize_size=st.sampled_from([0, 1024, 1536]),
    seed=st.integers(0, 2**31 - 1),
    epochs=st.integers(2, 10**6),
    batch_size=st.integers(1, 10**6),
    learning_rate=positive,
    weight_decay=positive,
    optimizer=st.sampled_from(["adamw", "sgd"]),
    momentum=fraction,
    warmup_epochs=st.floats(0, 1.5),
    label_smoothing=fraction,
    gradient_clip=st.floats(min_value=0, allow_infinity=False),
    processes=st.integers(1, 64),
)


@given(valid)
def test_the_round_trip_through_strings_changes_nothing(hyperparameters: Hyperparameters) -> None:
    strings = to_strings(hyperparameters)
    assert all(isinstance(value, str) for value in strings.values())
    assert from_strings(strings) == hyperparameters
    assert from_strings(json.loads(json.dumps(strings))) == hyperparameters


@given(valid)
def test_values_that_sagemaker_quotes_are_read_the_same(hyperparameters: Hyperparameters) -> None:
    quoted = {name: json.dumps(value) for name, value in to_strings(hyperparameters).items()}
    assert from_strings(quoted) == from_strings(to_strings(hyperparameters))


def test_a_text_that_would_lose_its_quotation_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with a quotation mark"):
        Hyperparameters(weights='"')


def test_missing_values_take_their_defaults() -> None:
    assert from_strings({}) == Hyperparameters()
    assert from_strings({"epochs": "7"}) == Hyperparameters(epochs=7)


def test_what_sagemaker_adds_is_left_out() -> None:
    strings = {
        "_tuning_objective_metric": "f1_macro",
        "sagemaker_job_name": "a-job",
        "sagemaker_region": '"eu-west-1"',
        "optimizer": '"sgd"',
    }
    assert from_strings(strings) == Hyperparameters(optimizer="sgd")


def test_a_script_of_somebody_elses_is_refused_and_not_left_out() -> None:
    with pytest.raises(UserError, match=r"names a script, 'dogs\.py'"):
        from_strings({"sagemaker_program": '"dogs.py"', "sagemaker_submit_directory": "s3://b/k"})


def test_all_problems_are_reported_at_once() -> None:
    strings = {"learning_rat": "0.1", "epochs": "many", "architecture": '"resnet19"', "zzz": "1"}
    with pytest.raises(UserError) as caught:
        from_strings(strings)
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    assert "did you mean 'learning_rate'?" in problems
    assert "'epochs' is 'many'" in problems
    assert "'architecture' is 'resnet19'" in problems
    assert "resnet18" in problems
    assert "unknown hyperparameter 'zzz': known are" in problems


def test_values_that_contradict_each_other_are_reported() -> None:
    with pytest.raises(UserError, match="warmup_epochs"):
        from_strings({"epochs": "2", "warmup_epochs": "2"})


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "", "abc"])
def test_a_learning_rate_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="learning_rate"):
        from_strings({"learning_rate": value})


def test_an_unknown_name_alone_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'optimizer'"):
        from_strings({"optimiser": "sgd"})
