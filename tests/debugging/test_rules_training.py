"""Each rule fires on a training made for it, and on no healthy one."""

import re
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.config.debugging import DiagnosisConfig
from darkroom.debugging.rules.catalogue import RULES, TRAINING_RULES
from darkroom.debugging.rules.custom import Windowed
from darkroom.debugging.rules.labels import suspects
from darkroom.debugging.rules.rule import NotApplicableError
from darkroom.debugging.rules.runner import judge
from darkroom.debugging.rules.series import first_run
from darkroom.telemetry.evidence import Evidence
from made_evidence import (
    CHANCE,
    LOOKS,
    STEPS,
    WEIGHTS,
    falling,
    healthy,
    made_epochs,
    made_facts,
    made_margins,
    made_steps,
    made_tensors,
)
from memory_source import MemorySource

HEALTHY = healthy()
UNASKED = ("similar_across_runs", "tensor_variance", "frozen_layer_changes", "overtraining")
"""Rules that have nothing to judge there."""


def hits(name: str, evidence: Evidence, **parameters: object) -> list:
    return list(RULES[name].evaluate(evidence, **parameters))


def with_tensors(**replaced: object) -> Evidence:
    """By 'kind_name' with dots as double underscores: a function of (step, array)."""
    changed = {}
    for key, change in replaced.items():
        kind, _, name = key.partition("__")
        changed[(kind, name.replace("__", "."))] = change
    return healthy(tensors=made_tensors(replaced=changed))


def in_all_weights(kind: str, change: object) -> Evidence:
    return healthy(tensors=made_tensors(replaced={(kind, name): change for name in WEIGHTS}))


@pytest.mark.parametrize("rule", TRAINING_RULES, ids=lambda rule: rule.name)
def test_nothing_is_found_in_a_healthy_training(rule: object) -> None:
    if rule.name in UNASKED:
        with pytest.raises(NotApplicableError):
            hits(rule.name, HEALTHY)
    else:
        assert hits(rule.name, HEALTHY) == []


def test_three_small_gradients_in_a_row_vanish() -> None:
    found = hits("vanishing_gradient", in_all_weights("gradient", lambda s, a: a * 1e-9))
    assert len(found) == 3
    assert found[0].step == 0


def test_gradients_of_a_network_that_has_learned_everything_may_vanish() -> None:
    evidence = in_all_weights("gradient", lambda s, a: a * (1e-9 if s >= 50 else 1))
    assert len(hits("vanishing_gradient", evidence)) == 3
    done = replace(evidence, steps=made_steps(falling(end=0.001, start=0.05)))
    assert hits("vanishing_gradient", done) == []


def test_a_single_overflow_of_a_scaled_gradient_is_no_explosion() -> None:
    first = with_tensors(gradient__fc__weight=lambda s, a: a * (np.inf if s == 0 else 1))
    assert hits("exploding_tensor", first) == []
    lasting = with_tensors(gradient__fc__weight=lambda s, a: a * np.inf)
    assert [hit.where for hit in hits("exploding_tensor", lasting)] == ["gradient of fc.weight"]


def test_a_loss_that_is_no_number_names_where_it_began() -> None:
    def broken(step: int, array: np.ndarray) -> np.ndarray:
        return array * (np.nan if step == 50 else 1)

    losses = falling()[:51]
    losses[50] = np.nan
    tensors = made_tensors(
        looks=LOOKS[:7], replaced={("input", "input"): broken, ("logits", "logits"): broken}
    )
    evidence = healthy(steps=made_steps(losses), tensors=tensors)
    (found,) = hits("non_finite_loss", evidence)
    assert (found.where, found.step) == ("input", 50)
    assert hits("exploding_tensor", evidence)[0].where == "input"


def test_channels_that_are_dead_for_three_looks_are_dead() -> None:
    found = hits("dead_relu", with_tensors(activation__relu=lambda s, a: a * 0))
    assert [(hit.where, hit.step) for hit in found] == [("relu", 0)]


def test_channels_that_take_turns_in_being_silent_are_not_dead() -> None:
    def silent(step: int, array: np.ndarray) -> np.ndarray:
        kept = np.roll(np.arange(16) < 5, 5 * LOOKS.index(step))
        return array * kept[:, None, None]

    evidence = with_tensors(activation__relu=silent)
    assert hits("dead_relu", evidence) == []
    assert hits("dead_relu", evidence, persistence=1, images=0) != []


def test_a_first_loss_far_above_that_of_guessing_means_bad_weights() -> None:
    evidence = healthy(steps=made_steps(falling(start=30.0)))
    (found,) = hits("poor_weight_initialization", evidence)
    assert found.figures["loss_of_guessing"] == pytest.approx(CHANCE)


def test_weights_of_zero_are_named_unless_the_first_step_moves_them() -> None:
    assert len(hits("all_zero", in_all_weights("weight", lambda s, a: a * 0))) == 3
    assert hits("all_zero", with_tensors(weight__fc__weight=lambda s, a: a * (s > 0))) == []


def test_weights_that_a_step_replaces_move_too_far() -> None:
    evidence = with_tensors(weight__fc__weight=lambda s, a: a * 20.0**s if s < 5 else a)
    assert [hit.where for hit in hits("weight_update_ratio", evidence)] == ["fc.weight"]


def test_a_weight_that_began_at_nought_may_move_as_far_as_it_likes() -> None:
    evidence = with_tensors(weight__fc__weight=lambda s, a: a * (1e-6 if s == 0 else 1))
    assert hits("weight_update_ratio", evidence) == []


def test_weights_may_rest_while_the_learning_rate_is_next_to_zero() -> None:
    looks = (*range(5), 122, 124, 126)
    held = {}

    def resting(step: int, array: np.ndarray) -> np.ndarray:
        return held.setdefault("w", array) if step >= 122 else array

    tensors = made_tensors(looks=looks, replaced={("weight", n): resting for n in WEIGHTS[:1]})
    evidence = healthy(tensors=tensors)
    for name in ("weight_update_ratio", "unchanged_tensor", "layer_not_learning"):
        assert hits(name, evidence) == []


def test_a_rate_that_replaces_weights_and_lifts_the_loss_is_too_high() -> None:
    moving = in_all_weights("weight", lambda s, a: a * (1 + s) ** 3)
    assert hits("learning_rate_too_high", moving) == []
    losses = falling(start=1.0, end=3.0)
    losses[:4] = CHANCE
    (found,) = hits("learning_rate_too_high", replace(moving, steps=made_steps(losses)))
    assert found.figures["update_over_weight"] > 1
    assert found.step == np.flatnonzero(losses > 1.5 * CHANCE)[0]
    far = falling(start=1.0, end=20.0)
    far[:4] = CHANCE
    assert hits("learning_rate_too_high", healthy(steps=made_steps(far))) != []


def test_a_rate_that_hardly_moves_weights_nor_the_loss_is_too_low() -> None:
    rng = np.random.default_rng(0)
    start = {name: rng.normal(0, 0.05, (16, 8)) for name in WEIGHTS}
    tensors = made_tensors(
        replaced={
            ("weight", name): lambda s, a, name=name: start[name] * (1 + 1e-6 * s)
            for name in WEIGHTS
        }
    )
    slow = healthy(tensors=tensors, steps=made_steps(falling(end=0.95 * CHANCE)))
    assert len(hits("learning_rate_too_low", slow)) == 1
    assert hits("learning_rate_too_low", healthy(tensors=tensors)) == []


def test_a_flat_loss_does_not_decrease_and_a_low_one_need_not() -> None:
    flat = healthy(steps=made_steps(np.full(STEPS, CHANCE)))
    assert len(hits("loss_not_decreasing", flat)) == 1
    assert hits("loss_not_decreasing", healthy(steps=made_steps(np.full(STEPS, 0.1)))) == []
    assert len(hits("plateau", flat)) == 1


def test_a_jump_of_the_loss_is_a_spike_and_a_hard_batch_is_not() -> None:
    losses = falling()
    losses[100:103] = 6.0
    assert hits("loss_spike", healthy(steps=made_steps(losses)))[0].step == 100
    losses[100:103] = 1.2
    assert hits("loss_spike", healthy(steps=made_steps(losses))) == []


def test_losses_that_are_far_apart_at_the_end_are_overfit() -> None:
    evidence = healthy(epochs=made_epochs([0.9, 0.3, 0.05, 0.01], [0.9, 0.9, 1.2, 1.5]))
    (found,) = hits("overfit", evidence)
    assert found.figures["epoch"] == 2
    assert len(hits("train_validation_divergence", evidence)) == 1


def test_losses_that_come_together_again_are_not_overfit() -> None:
    evidence = healthy(epochs=made_epochs([0.9, 0.3, 0.2, 0.2], [3.0, 2.0, 0.6, 0.4]))
    assert hits("overfit", evidence) == []


def test_validation_is_not_judged_before_batch_norm_has_settled() -> None:
    evidence = healthy(
        facts=made_facts(architecture="mobilenet_v3_small"),
        epochs=made_epochs([0.9, 0.3, 0.05, 0.01], [0.9, 0.9, 1.2, 1.5]),
    )
    with pytest.raises(NotApplicableError, match="128 of about 300 steps"):
        hits("overfit", evidence)


def test_ten_epochs_without_a_better_validation_loss_are_overtraining() -> None:
    evidence = healthy(
        epochs=made_epochs([1 / n for n in range(1, 14)], [1, 0.5, 0.4, *[0.399] * 10])
    )
    assert hits("overtraining", evidence)[0].where == "validation loss"


def test_a_validation_that_batch_norm_spoils_is_named_as_such() -> None:
    facts = made_facts(architecture="mobilenet_v3_small", hyperparameters={"weights": "none"})
    spoiled = healthy(facts=facts, epochs=made_epochs([0.9, 0.3], [1.1, 1.1], accuracy=0.4))
    (found,) = hits("validation_unsettled", spoiled)
    assert found.figures["steps"] < found.figures["steps_needed"]
    assert found.figures["validation_accuracy"] < 0.5 * found.figures["training_accuracy"]
    fine = healthy(facts=facts, epochs=made_epochs([0.9, 0.3], [0.9, 0.3], accuracy=0.8))
    assert hits("validation_unsettled", fine) == []
    settled = made_facts(architecture="resnet18", hyperparameters={"weights": "imagenet"})
    assert hits("validation_unsettled", replace(spoiled, facts=settled)) == []


def test_a_loss_near_that_of_guessing_is_underfitting() -> None:
    assert hits("underfitting", healthy(epochs=made_epochs([1.09, 1.05], [1.1, 1.1]))) != []


@pytest.mark.parametrize(
    ("accuracy", "balanced", "counts", "expected"),
    [
        (0.33, 0.33, (60, 60, 60), True),
        (0.40, 0.40, (60, 60, 60), True),
        (0.45, 0.45, (60, 60, 60), False),
        (0.80, 0.34, (80, 10, 10), True),  # always the largest class
        (0.60, 0.62, (80, 10, 10), False),  # classes were weighed
        (0.50, 0.50, (10, 10, 0), True),
        (0.90, 0.90, (10, 10, 0), False),
    ],
)
def test_validation_at_the_level_of_guessing_is_found(
    accuracy: float, balanced: float, counts: tuple[int, ...], expected: bool
) -> None:
    facts = made_facts(class_counts={"train": (300,) * 3, "validation": counts})
    # The training images are learned by heart: neither underfitting nor the losses tell.
    epochs = made_epochs([0.9, 0.1], [1.1, 1.1], accuracy=accuracy, balanced=balanced)
    assert bool(hits("chance_level", healthy(facts=facts, epochs=epochs))) == expected


def test_confusion_says_what_is_taken_for_what_and_how_often() -> None:
    source = made_tensors()
    labels = np.repeat([0, 1, 2], 30)
    predicted = labels.copy()
    predicted[30:60] = 0  # dogs are taken for cats
    predicted[80:90] = 0
    source.add("labels", kind="labels", step=4, array=labels, mode="eval")
    source.add("logits", kind="logits", step=4, array=np.eye(3)[predicted], mode="eval")
    found = hits("confusion", healthy(tensors=source))
    told = [hit.figures for hit in found if hit.figures["predicted"] == "cat"]
    right = next(figures for figures in told if "share_right" in figures)
    assert right["share_right"] == pytest.approx(30 / 70)
    assert right["most_others_are"] == "dog"
    wrong = next(figures for figures in told if "actually" in figures)
    assert (wrong["actually"], wrong["share_of_the_predicted"]) == ("dog", pytest.approx(30 / 70))
    assert not any(figures.get("actually") == figures["predicted"] for figures in told)


def test_a_healthy_first_epoch_is_not_blamed_for_its_warm_up() -> None:
    losses = CHANCE * np.random.default_rng(0).uniform(0.97, 1.03, 40)
    one_epoch = replace(made_steps(losses), epoch=np.ones(40, dtype=np.int64))
    with pytest.raises(NotApplicableError, match="first epoch"):
        hits("loss_not_decreasing", healthy(steps=one_epoch))
    assert hits("loss_not_decreasing", healthy(steps=made_steps(losses.repeat(4)))) != []


def test_a_fifth_of_wrong_labels_is_noise_and_their_images_are_named() -> None:
    evidence = healthy(margins=made_margins(wrong=0.2))
    (found,) = hits("label_noise", evidence)
    assert 0.1 < found.figures["share"] < 0.25
    assert re.search(r"jpg: labelled \w+, looks like \w+", str(found.figures["suspect_1"]))
    margins = evidence.margins
    assert np.isin(suspects(margins)[:50], np.flatnonzero(margins.margin < 0)).all()


@pytest.mark.parametrize("accuracy", [0.6, 0.75, 0.9, 0.99])
def test_hard_images_are_no_noise_whatever_the_accuracy(accuracy: float) -> None:
    rng = np.random.default_rng(3)
    margins = replace(made_margins(), margin=rng.normal(NormalDist().inv_cdf(accuracy), 1, 1024))
    epochs = made_epochs([0.9, 0.6], [0.9, 0.7], accuracy=accuracy)
    assert hits("label_noise", healthy(margins=margins, epochs=epochs)) == []


def test_labels_that_teach_nothing_are_shuffled() -> None:
    epochs = made_epochs([1.09, 0.9, 0.5], [1.1, 1.2, 1.5], accuracy=0.35, train_accuracy=0.8)
    guessed = replace(made_steps(falling()), correct=np.full(STEPS, 11))
    (found,) = hits("label_noise", healthy(epochs=epochs, steps=guessed))
    assert found.where == "all labels"
    assert hits("label_noise", healthy(epochs=epochs)) == []


def test_before_batch_norm_has_settled_the_training_images_tell_shuffled_labels() -> None:
    facts = made_facts(
        architecture="mobilenet_v3_small",
        hyperparameters={"weights": "imagenet"},
        expected_trainable={f"features.{number}.weight": True for number in range(60)},
    )
    guessed = replace(made_steps(falling()), correct=np.full(STEPS, 11))

    def found(train_accuracy: float) -> list:
        epochs = made_epochs(
            [1.1, 1.1, 1.1], [1.3] * 3, accuracy=0.2, train_accuracy=train_accuracy
        )
        return hits("label_noise", healthy(facts=facts, epochs=epochs, steps=guessed))

    (hit,) = found(0.34)
    assert (hit.where, hit.figures["training_accuracy"]) == ("all labels", 0.34)
    assert found(0.6) == []


def test_a_class_without_training_images_is_an_error_and_without_validation_a_warning() -> None:
    facts = made_facts(class_counts={"train": (300, 0, 300), "validation": (60, 60, 0)})
    found = hits("class_missing", healthy(facts=facts))
    assert [(hit.where, hit.severity) for hit in found] == [
        ("dog in train", None),
        ("hat in validation", "warning"),
    ]
    assert hits("class_imbalance", healthy(facts=facts)) == []


def test_shared_images_are_a_leak_and_a_few_of_them_a_note() -> None:
    facts = made_facts(shared_count=18, shared_images=(("a.jpg", "b.jpg"),))
    (found,) = hits("leakage", healthy(facts=facts))
    assert (found.figures["share"], found.severity) == (0.1, None)
    assert hits("leakage", healthy(facts=made_facts(shared_count=1)))[0].severity == "note"


@pytest.mark.parametrize("scale", [1, 255])
def test_raw_pixels_are_not_normalised(scale: int) -> None:
    evidence = with_tensors(input__input=lambda s, a: scale * (a - a.min()) / np.ptp(a))
    (found,) = hits("check_input_images", evidence)
    assert found.where == "all channels"


def test_white_and_black_pictures_are_normalised_as_they_are() -> None:
    for value in (2.5, -2.1):
        evidence = with_tensors(input__input=lambda s, a, v=value: np.where(a > -2, v, -0.5))
        assert hits("check_input_images", evidence) == []


def test_a_batch_of_one_is_too_small() -> None:
    assert hits("noisy_batches", healthy(steps=made_steps(falling(), images=1))) != []


def test_a_batch_is_as_large_as_the_share_that_was_recorded_however_many_processes_there_are() -> (
    None
):
    facts = made_facts(processes=4)
    assert hits("noisy_batches", healthy(facts=facts, steps=made_steps(falling(), images=8))) == []
    assert hits("noisy_batches", healthy(facts=facts, steps=made_steps(falling(), images=3))) != []


def test_a_layer_that_the_optimiser_lacks_does_not_learn() -> None:
    facts = made_facts(trainable={**dict.fromkeys(WEIGHTS, True), "conv1.weight": False})
    (found,) = hits("layer_not_learning", healthy(facts=facts))
    assert (found.where, found.figures["problem"]) == (
        "conv1.weight",
        "the optimiser does not have it",
    )


def test_a_layer_without_a_gradient_or_without_change_does_not_learn() -> None:
    def none(step: int, array: np.ndarray) -> None:
        return None

    gone = with_tensors(gradient__conv1__weight=none)
    assert hits("layer_not_learning", gone)[0].figures["problem"] == "no gradient reaches it"
    zero = with_tensors(gradient__conv1__weight=lambda s, a: a * 0)
    assert hits("layer_not_learning", zero)[0].figures["problem"] == "its gradient is zero"
    still = with_tensors(weight__conv1__weight=lambda s, a: a * 0 + 0.1)
    assert hits("layer_not_learning", still)[0].figures["problem"] == "it does not change"
    assert [hit.where for hit in hits("unchanged_tensor", still)] == ["conv1.weight"]


def test_a_frozen_layer_that_changes_is_named() -> None:
    facts = made_facts(expected_trainable={"conv1.weight": False, "fc.weight": True})
    assert [h.where for h in hits("frozen_layer_changes", healthy(facts=facts))] == ["conv1.weight"]
    kept = with_tensors(weight__conv1__weight=lambda s, a: a * 0 + 0.1)
    assert hits("frozen_layer_changes", replace(kept, facts=facts)) == []


def test_a_training_that_stands_still_is_stalled_while_it_runs_and_after() -> None:
    running = healthy(ended=False, now=STEPS + 1900.0)
    assert hits("stalled_training", running)[0].step == STEPS - 1
    gap = np.arange(STEPS) + 2000.0 * (np.arange(STEPS) > 50)
    assert hits("stalled_training", healthy(steps=made_steps(falling(), started=gap)))[0].step == 50


def test_a_run_that_repeats_another_is_similar_and_another_is_not() -> None:
    assert hits("similar_across_runs", healthy(other=made_tensors())) == []
    other = made_tensors(replaced={("weight", "fc.weight"): lambda s, a: a + (s >= 50)})
    assert [h.step for h in hits("similar_across_runs", healthy(other=other))] == [50]


def test_imbalance_and_mispredicted_classes_are_noted() -> None:
    facts = made_facts(class_counts={"train": (1000, 1000, 50), "validation": (60, 60, 60)})
    assert hits("class_imbalance", healthy(facts=facts))[0].where == "hat"
    source = MemorySource()
    labels = np.arange(90) % 3
    source.add("labels", kind="labels", step=0, array=labels, mode="eval")
    source.add("logits", kind="logits", step=0, array=np.eye(3)[labels * 0], mode="eval")
    mispredicted = hits("class_imbalance", healthy(tensors=source))
    assert [hit.where for hit in mispredicted] == ["dog", "hat"]
    confused = hits("confusion", healthy(tensors=source))
    assert confused[0].where == "predicted as cat"
    tried = {
        str(hit.figures.get("actually", hit.figures["predicted"])): RULES["confusion"].advice(
            hit, HEALTHY
        )[0]
        for hit in confused
    }
    assert "what is wrongly taken for cat" in tried["cat"]
    assert "images of dog and cat" in tried["dog"]


@given(st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_updates_do_not_depend_on_the_scale_of_the_weights(scale: float) -> None:
    """But for epsilon and the weights that count as nought."""
    ratios = []
    for factor in (1.0, scale):
        source = MemorySource()
        generator = np.random.default_rng(5)
        first = generator.normal(0, 1, 50) * factor
        source.add("w", kind="weight", step=0, array=first)
        source.add("w", kind="weight", step=1, array=first * 1.5)
        ratios.append(source.statistics("w", kind="weight")["update_ratio"][1])
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-5)


@given(st.sets(st.sampled_from(LOOKS), min_size=0))
@settings(max_examples=15, deadline=None)
def test_looks_that_are_missing_make_no_finding(missing: set[int]) -> None:
    looks = [step for step in LOOKS if step not in missing]
    evidence = healthy(tensors=made_tensors(looks=looks))
    diagnosis = judge(evidence, config=DiagnosisConfig())
    assert diagnosis.findings == ()
    assert [one for one in diagnosis.rules if one.outcome == "failed"] == []


@given(st.integers(0, STEPS))
@settings(max_examples=15, deadline=None)
def test_a_training_is_healthy_at_every_moment(count: int) -> None:
    steps = made_steps(falling())
    columns = {
        name: getattr(steps, name)[:count]
        for name in vars(steps)
        if isinstance(getattr(steps, name), np.ndarray)
    }
    evidence = replace(
        HEALTHY,
        steps=replace(steps, **columns),
        epochs=HEALTHY.epochs[: count // 32],
        tensors=Windowed(HEALTHY.tensors, limits={"train": (0, count - 1), "eval": (0, 3)}),
        ended=False,
        now=float(count),
    )
    diagnosis = judge(evidence, config=DiagnosisConfig(), live=True)
    assert diagnosis.findings == ()
    assert [one for one in diagnosis.rules if one.outcome == "failed"] == []


def test_the_order_of_names_does_not_matter() -> None:
    class Reversed:
        def __init__(self, source: MemorySource) -> None:
            self._source = source

        def names(self, kind: str) -> list[str]:
            return list(reversed(self._source.names(kind)))

        def __getattr__(self, name: str) -> object:
            return getattr(self._source, name)

    evidence = in_all_weights("gradient", lambda s, a: a * 1e-9)
    mirrored = replace(evidence, tensors=Reversed(evidence.tensors))
    for name in ("vanishing_gradient", "layer_not_learning"):
        assert {h.where for h in hits(name, evidence)} == {h.where for h in hits(name, mirrored)}


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 4))
def test_the_first_run_is_the_one_that_a_loop_finds(condition: list[bool], length: int) -> None:
    found = next(
        (i for i in range(len(condition) - length + 1) if all(condition[i : i + length])), None
    )
    assert first_run(np.array(condition, dtype=bool), length=length) == found
