"""The configuration's own rules, without files."""

import pytest
from pydantic import ValidationError

from darkroom.config import Config, Hyperparameters, ModelConfig
from darkroom.config.sections import is_better
from darkroom.config.tuning import FloatRange, IntRange, TuningConfig


def test_every_key_has_a_description() -> None:
    for name, section in Config().__class__.model_fields.items():
        fields = section.annotation.model_fields
        assert all(field.description for field in fields.values()), name


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().training.epochs = 3


def test_hyperparameters_are_flat_and_of_plain_types() -> None:
    values = Config().hyperparameters.model_dump()

    assert values["architecture"] == "resnet18"
    assert values["epochs"] == 10
    assert {type(value) for value in values.values()} <= {int, float, str, bool}


def test_replacing_hyperparameters_shrinks_the_warmup_to_fit_the_epochs() -> None:
    replaced = Hyperparameters(warmup_epochs=2, epochs=5).replace(epochs=1)

    assert (replaced.epochs, replaced.warmup_epochs) == (1, 0.5)


def test_replacing_hyperparameters_validates_them() -> None:
    with pytest.raises(ValidationError):
        Hyperparameters().replace(learning_rate=-1.0)


def test_the_working_size_is_in_the_proportion_of_torchvision_unless_given() -> None:
    assert ModelConfig(image_size=224).working_size == 256
    assert ModelConfig(image_size=32, resize_size=32).working_size == 32


def test_the_direction_follows_the_objective_unless_given() -> None:
    assert TuningConfig(objective="f1_macro").resolved_direction == "maximize"
    assert TuningConfig(objective="log_loss").resolved_direction == "minimize"
    assert TuningConfig(objective="log_loss", direction="maximize").resolved_direction == "maximize"


def test_better_is_more_accuracy_and_less_loss() -> None:
    assert is_better(0.9, 0.8, metric="accuracy")
    assert not is_better(0.8, 0.8, metric="accuracy")
    assert is_better(0.1, 0.2, metric="log_loss")


def test_ranges_are_ordered_and_a_logarithmic_one_is_positive() -> None:
    for low, high, log in [(2.0, 1.0, False), (1.0, 1.0, False), (0.0, 1.0, True)]:
        with pytest.raises(ValidationError):
            FloatRange(low=low, high=high, log=log)
    for low, high in [(0, 3), (4, 3)]:
        with pytest.raises(ValidationError):
            IntRange(low=low, high=high)
