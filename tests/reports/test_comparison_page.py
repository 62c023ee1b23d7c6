"""Two trainings side by side: what differs, and whether it is better."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from test_training_page import HOSTILE, checked, drawn

from darkroom.reports.comparison import (
    Pair,
    RecordedRun,
    caveats,
    comparison_page,
    course,
    findings,
    metrics,
    phases,
    settings,
    signed,
    verdict,
)
from darkroom.telemetry.evidence import Evidence
from darkroom.telemetry.findings import Diagnosis
from training_evidence import (
    broken_at_step_3,
    facts,
    healthy,
    nothing,
    overfitting,
    vanishing,
)
from training_findings import diagnosis, finding

UNJUDGED = Diagnosis(findings=(), rules=())
JUDGED = diagnosis()


def run(
    evidence: Evidence, *, judged: Diagnosis = JUDGED, name: str = "run", price: float | None = None
) -> RecordedRun:
    return RecordedRun(name, evidence=evidence, diagnosis=judged, dollars_per_hour=price)


BEFORE = run(overfitting(), name="before-the-change", price=0.2)
AFTER = run(
    healthy(
        facts=facts(
            hyperparameters={**facts().hyperparameters, "learning_rate": 3e-4, "dropout": 0.1}
        )
    ),
    judged=Diagnosis(findings=(finding(), finding(rule="new")), rules=JUDGED.rules),
    name="after-the-change",
    price=0.2,
)


def test_the_page_is_complete_in_itself_and_says_what_changed() -> None:
    page = comparison_page(BEFORE, after=AFTER)
    checked(page)
    for told in ("before-the-change", "learning_rate", "3e−4", "dropout", "F1 macro went from"):
        assert told in page
    assert page.index("Settings that differ") < page.index("Curves") < page.index("time went")


@pytest.mark.parametrize(
    "evidence",
    [nothing(), broken_at_step_3(), vanishing()],
    ids=["nothing", "broken", "vanishing"],
)
def test_any_two_trainings_can_be_compared(evidence: Evidence) -> None:
    for pair in ((BEFORE, run(evidence)), (run(evidence, judged=UNJUDGED), AFTER)):
        page = comparison_page(pair[0], after=pair[1])
        checked(page)
        assert not [value for value in drawn(page) if "nan" in value]


def test_nothing_against_nothing_is_said_so() -> None:
    empty = run(nothing(), judged=UNJUDGED)
    page = comparison_page(empty, after=empty)
    checked(page)
    assert "Neither run has anything to compare" in page
    assert "None that was recorded" in page


def test_names_are_escaped() -> None:
    hostile = run(
        healthy(facts=facts(hyperparameters={HOSTILE: HOSTILE})),
        judged=Diagnosis(findings=(finding(rule=HOSTILE, title=HOSTILE, where=HOSTILE),), rules=()),
        name=HOSTILE,
    )
    page = comparison_page(hostile, after=AFTER)
    checked(page)
    assert "<script" not in page


def test_settings_that_are_equal_are_left_out() -> None:
    told = {one.name: (one.before, one.after) for one in settings(BEFORE, after=AFTER)}
    assert told == {"learning_rate": ("0.001", "3e−4"), "dropout": ("–", "0.1")}


def test_findings_come_stay_and_go() -> None:
    traced = {one.finding.rule: one.fate for one in findings(BEFORE, after=AFTER)}
    assert traced["new"] == "came"
    assert traced["vanishing_gradient"] == "stayed"
    assert traced["overfitting"] == traced["data_wait"] == "went"
    assert next(iter(traced.values())) == "came"


def test_better_and_worse_are_told_by_what_is_measured() -> None:
    verdicts = {pair.name: pair.verdict for pair in metrics(BEFORE, after=AFTER)}
    assert verdicts["F1 macro"] == verdicts["accuracy"] == "good"
    how = {pair.name: pair for pair in course(BEFORE, after=AFTER)}
    assert how["seconds"].verdict == "bad"
    assert how["steps"].verdict == ""
    assert how["dollars, estimated"].before == pytest.approx(0.2 * how["seconds"].before / 3600)
    assert Pair("x", before=1.0, after=1.0, less_is_better=True).verdict == ""
    assert Pair("x", before=None, after=1.0, less_is_better=True).difference is None


@pytest.mark.parametrize(
    ("better", "each", "chance"),
    [(0.90, 50, ""), (0.85, 50, "within chance"), (0.85, 500, ""), (0.80, 5, "")],
)
def test_a_difference_that_other_images_could_turn_round_is_not_called_better(
    better: float, each: int, chance: str
) -> None:
    one, other = (
        run(scored(accuracy=value, f1_macro=value, log_loss=1 - value, each=each))
        for value in (0.8, better)
    )
    found = {pair.name: pair for pair in metrics(one, after=other)}
    for name, way, turned in (("accuracy", "good", "bad"), ("F1 macro", "good", "bad")):
        same = better == 0.8
        assert found[name].chance == chance
        assert found[name].verdict == ("" if chance or same else way)
        back = {pair.name: pair for pair in metrics(other, after=one)}[name]
        assert back.verdict == ("" if chance or same else turned)
    assert found["log loss"].verdict == ""
    page = comparison_page(one, after=other)
    assert (f"{better:.3f}, within chance." in page) == bool(chance)


def test_averages_over_classes_vary_as_their_small_classes_do() -> None:
    counts = [400, 400, 400, 400, 400, 5]
    before, after = (
        run(scored(accuracy=value, f1_macro=value, log_loss=0.5, counts=counts))
        for value in (0.8, 0.85)
    )
    found = {pair.name: pair.chance for pair in metrics(before, after=after)}
    assert found == {"accuracy": "", "F1 macro": "within chance", "log loss": ""}


def scored(*, each: int = 0, counts: Sequence[int] = (), **values: float) -> Evidence:
    """A training whose kept epoch has these metrics of so many validation images a class."""
    evidence = healthy()
    judged = {**facts().class_counts, "validation": list(counts) or [each] * len(facts().classes)}
    last = evidence.epochs[-1].model_copy(update={"validation": values})
    return replace(evidence, facts=replace(evidence.facts, class_counts=judged), epochs=[last])


def test_phases_are_compared_in_the_order_of_a_step() -> None:
    names = [pair.name for pair in phases(BEFORE, after=AFTER)]
    assert names[:3] == ["waiting for data", "to the device", "forward"]


def test_what_cannot_be_compared_is_said() -> None:
    assert caveats(BEFORE, after=AFTER) == []
    fewer = run(healthy(facts=facts(class_counts={"train": [1] * 6})), judged=UNJUDGED, name="b")
    told = caveats(BEFORE, after=fewer)
    assert told[0].startswith("The numbers of validation images differ")
    assert told[1].startswith("b was not judged")
    others = run(healthy(facts=facts(classes=("a", "b"))))
    assert caveats(BEFORE, after=others) == ["The classes differ: metrics cannot be compared."]
    [told] = caveats(BEFORE, after=replace(BEFORE, name="later"))
    assert told.startswith("Both are one and the same training")


def test_differences_are_signed() -> None:
    assert [signed(value) for value in (0.25, -0.25, 0.0, None)] == ["+0.25", "−0.25", "0", "–"]


def test_the_verdict_counts() -> None:
    told = verdict(BEFORE, after=AFTER)
    assert "Findings: 1 came, 1 stayed, 4 went." in told
    assert verdict(BEFORE, after=BEFORE).startswith("F1 macro went from 0.361 to 0.361. It took as")
