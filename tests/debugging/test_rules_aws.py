"""Our rules decide as SageMaker Debugger's do, when they are given its parameters.

The cases are those of AWS' documentation and of smdebug's old public tests, from 2019.
"""

import numpy as np
import pytest

from darkroom.debugging.rules.catalogue import RULES
from darkroom.debugging.rules.custom import AWS_DEFAULTS, Windowed, evidence_of_tensors
from darkroom.debugging.rules.labels import confused_pairs
from darkroom.debugging.rules.losses import not_decreasing
from darkroom.telemetry.evidence import Evidence
from made_evidence import healthy, made_tensors
from memory_source import MemorySource


def as_aws(name: str, evidence: Evidence, **parameters: object) -> list:
    return RULES[name].evaluate(evidence, **{**AWS_DEFAULTS.get(name, {}), **parameters})


def recorded(values: dict[int, np.ndarray], *, name: str = "w", kind: str = "weight") -> Evidence:
    source = MemorySource()
    for step, array in values.items():
        source.add(name, kind=kind, step=step, array=np.asarray(array, dtype=float))
    return evidence_of_tensors(source)


LOSSES = {0: 0.30, 4: 0.33, 8: 0.31, 12: 0.30, 16: 0.28}


def test_a_loss_that_has_not_fallen_in_ten_steps_fires_at_the_first_check() -> None:
    steps, losses = np.array([*LOSSES]), np.array([*LOSSES.values()])
    assert not_decreasing(steps, losses=losses, num_steps=10) == [12]


def test_a_loss_that_is_looked_at_from_step_13_on_does_not_fire() -> None:
    later = {step: loss for step, loss in LOSSES.items() if step >= 13}
    assert (
        not_decreasing(np.array([*later]), losses=np.array([*later.values()]), num_steps=10) == []
    )


def test_losses_saved_every_third_step_are_compared_as_the_documentation_says() -> None:
    steps = np.arange(9, 40, 3)
    losses = np.where(steps == 33, 5.0, 1.0 / steps)
    assert not_decreasing(steps, losses=losses, num_steps=10) == [33]
    flat = np.ones(len(steps))
    assert not_decreasing(steps, losses=flat, num_steps=10) == [21, 33]


def test_an_increase_fires_even_where_no_fall_is_asked_for() -> None:
    steps, losses = np.array([0, 10]), np.array([1.0, 1.06])
    asked = {"num_steps": 10, "diff_percent": -100.0}
    assert not_decreasing(steps, losses=losses, **asked) == [10]
    assert not_decreasing(steps, losses=losses, **asked, increase_threshold_percent=7) == []


def test_the_rule_over_recorded_losses_fires_at_the_same_step() -> None:
    evidence = recorded({s: np.array(v) for s, v in LOSSES.items()}, name="loss", kind="loss")
    assert [hit.step for hit in as_aws("loss_not_decreasing", evidence)] == [12]


def test_a_tensor_of_ones_is_unchanged_after_three_steps_and_not_after_two() -> None:
    evidence = recorded({step: np.ones((3, 3)) for step in (0, 1, 2)})
    chosen = {"tensor_regex": ".*"}
    assert [hit.step for hit in as_aws("unchanged_tensor", evidence, **chosen)] == [2]
    earlier = evidence_of_tensors(Windowed(evidence.tensors, limits={"train": (0, 1)}))
    assert as_aws("unchanged_tensor", earlier, **chosen) == []


def test_other_tolerances_compare_whole_tensors() -> None:
    evidence = recorded({step: np.ones(3) + 1e-4 * step for step in range(3)})
    assert as_aws("unchanged_tensor", evidence, tensor_regex="w", rtol=1e-2) != []
    assert as_aws("unchanged_tensor", evidence, tensor_regex="w") == []


def test_990_labels_of_one_class_and_10_of_another_are_imbalanced() -> None:
    source = MemorySource()
    labels = np.repeat([0, 1], [990, 10])
    for step in range(4):
        part = labels[step::4]
        source.add("labels", kind="labels", step=step, array=part)
        source.add("logits", kind="logits", step=step, array=np.eye(2)[part])
    found = as_aws("class_imbalance", evidence_of_tensors(source))
    assert [hit.where for hit in found] == ["class 1"]
    assert found[0].figures["largest_to_smallest"] == 99
    two_steps = evidence_of_tensors(Windowed(source, limits={"train": (0, 0)}))
    assert as_aws("class_imbalance", two_steps) == []


@pytest.mark.parametrize(
    ("wrong", "min_diag", "max_off_diag", "fires"),
    [(0, 0.9, 0.1, False), (2, 0.9, 0.1, True), (2, 0.0, 0.01, True), (2, 0.0, 0.5, False)],
)
def test_confusion_is_normalised_by_what_was_predicted(
    wrong: int, min_diag: float, max_off_diag: float, fires: bool
) -> None:
    counts = np.diag([10] * 10)
    counts[0, 0] -= wrong
    counts[0, 1] += wrong
    found = confused_pairs(counts, min_diag=min_diag, max_off_diag=max_off_diag)
    assert bool(found) == fires


def test_one_error_in_ten_is_confusion_by_either_threshold() -> None:
    labels = np.repeat(np.arange(10), 10)
    predicted = labels.copy()
    predicted[:10:5] = 1
    source = MemorySource()
    source.add("labels", kind="labels", step=0, array=labels, mode="eval")
    source.add("logits", kind="logits", step=0, array=np.eye(10)[predicted], mode="eval")
    evidence = evidence_of_tensors(source)
    assert as_aws("confusion", evidence) != []
    assert as_aws("confusion", evidence, min_diag=0.0, max_off_diag=0.01) != []


def test_any_small_gradient_vanishes_by_aws_parameters() -> None:
    evidence = recorded({0: np.full(4, 9e-8)}, name="fc.bias", kind="gradient")
    assert [hit.where for hit in as_aws("vanishing_gradient", evidence)] == ["fc.bias"]
    assert as_aws("vanishing_gradient", evidence, threshold=1e-8) == []


def test_any_infinite_element_explodes_unless_only_nan_counts() -> None:
    evidence = recorded({3: np.array([1.0, np.inf])}, kind="gradient")
    assert [hit.step for hit in as_aws("exploding_tensor", evidence)] == [3]
    assert as_aws("exploding_tensor", evidence, only_nan=True) == []
    assert as_aws("exploding_tensor", recorded({3: np.array([np.nan])}), only_nan=True) != []


def test_the_update_ratio_is_that_of_means() -> None:
    evidence = recorded(
        {0: np.array([1.0, -1.0]), 1: np.array([12.0, 0.0]), 2: np.array([12.0, 0])}
    )
    hits = as_aws("weight_update_ratio", evidence, large_threshold=5.9)
    assert [(hit.step, hit.figures["update_ratio"]) for hit in hits] == [
        (1, pytest.approx(6.0)),
        (2, pytest.approx(0.0)),
    ]
    assert as_aws("weight_update_ratio", evidence, num_steps=2, small_threshold=0.0) == []


def test_a_tensor_of_ninety_percent_zeros_is_all_zero_by_that_threshold() -> None:
    evidence = recorded({0: np.array([0.0] * 9 + [1.0])})
    assert as_aws("all_zero", evidence, tensor_regex="w", threshold=90.0) != []
    assert as_aws("all_zero", evidence, tensor_regex="w", threshold=91.0) == []


def test_the_input_is_checked_by_the_mean_of_each_channel() -> None:
    images = np.zeros((500, 3, 2, 2))
    images[:, 1] = 0.3
    evidence = recorded({0: images}, name="input", kind="input")
    assert [hit.where for hit in as_aws("check_input_images", evidence)] == ["channel 1"]
    assert as_aws("check_input_images", evidence, threshold_mean=0.4) == []


def test_variance_out_of_the_given_range_fires() -> None:
    evidence = recorded({0: np.array([-4.0, 4.0])})
    assert as_aws("tensor_variance", evidence, max_threshold=10.0) != []
    assert as_aws("tensor_variance", evidence, max_threshold=17.0, min_threshold=1e-5) == []


def test_more_than_half_of_the_channels_dead_is_a_dead_layer() -> None:
    outputs = np.ones((4, 4, 5, 5))
    outputs[:, :3] = 0
    evidence = recorded({0: outputs}, name="relu", kind="activation")
    hits = as_aws("dead_relu", evidence)
    assert [(hit.where, hit.figures["channels_percent"]) for hit in hits] == [("relu", 75.0)]
    assert as_aws("dead_relu", evidence, threshold_layer=75.0) == []


def test_inputs_beyond_the_bounds_saturate_a_tanh() -> None:
    inputs = np.full((4, 2, 5), 10.0)
    evidence = recorded({0: inputs}, name="tanh", kind="activation_input")
    assert as_aws("saturated_activation", evidence) != []
    assert as_aws("saturated_activation", evidence, threshold_tanh_max=11.0) == []


def test_aws_parameters_are_parameters_of_the_rules() -> None:
    for name, parameters in AWS_DEFAULTS.items():
        assert set(parameters) <= set(RULES[name].parameters), name


def test_a_healthy_training_meets_several_of_aws_conditions() -> None:
    """Why our defaults differ."""
    evidence = healthy(tensors=made_tensors())
    fired = {
        name
        for name in ("vanishing_gradient", "loss_not_decreasing", "overfit")
        if as_aws(name, evidence)
    }
    assert fired == {"vanishing_gradient", "loss_not_decreasing", "overfit"}
