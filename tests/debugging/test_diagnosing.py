"""A recording judged as a whole."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from darkroom.base.errors import UserError
from darkroom.config.debugging import Debugging, DiagnosisConfig, RecordingConfig, RuleConfig
from darkroom.data.dataset import Dataset
from darkroom.debugging.diagnosis import diagnose, shared_images, summary_lines
from darkroom.debugging.profiling.summary import ProfileSummary
from darkroom.reports.training_page import diagnose_and_report
from darkroom.telemetry.findings import Diagnosis, Finding, RuleOutcome
from darkroom.telemetry.system import TrainingPrices
from darkroom.training.loop import train
from small_trainings import small_hyperparameters, write_dataset

pytestmark = pytest.mark.slow  # they train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("images"))


def recording_of(dataset: Dataset, *, home: Path, **values: object) -> Path:
    train(
        dataset,
        hyperparameters=small_hyperparameters(**values),
        folder=home / "run",
        cache=home / "cache",
        debugging=Debugging(
            recording=RecordingConfig(backend="torch", every_steps=2, profiled_steps=2),
            diagnosis=DiagnosisConfig(live=False),
        ),
    )
    return home / "run" / "recording"


@pytest.fixture(scope="module")
def recording(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recording_of(dataset, home=tmp_path_factory.mktemp("recording"))


def outcomes(diagnosis: Diagnosis) -> dict[str, str]:
    return {rule.rule: rule.outcome for rule in diagnosis.rules}


def test_every_rule_has_an_outcome_and_none_fails(recording: Path, dataset: Dataset) -> None:
    told = diagnose(recording, config=DiagnosisConfig(), dataset=dataset)
    assert "failed" not in outcomes(told.diagnosis).values()
    assert len(told.diagnosis.rules) >= 40
    assert told.operators is not None
    assert Diagnosis.model_validate_json((recording / "findings.json").read_text())
    assert summary_lines(told.diagnosis)


def test_what_was_told_while_it_ran_and_has_passed_is_said(
    recording: Path, dataset: Dataset, tmp_path: Path
) -> None:
    ended = shutil.copytree(recording, tmp_path / "recording")
    before = outcomes(diagnose(ended, config=DiagnosisConfig()).diagnosis)
    rule = next(name for name, outcome in before.items() if outcome == "clear")
    (ended / "told.jsonl").write_text(json.dumps({"rule": rule, "step": 9, "epoch": 2}) + "\n")
    diagnosis = diagnose(ended, config=DiagnosisConfig()).diagnosis
    said = next(one.reason for one in diagnosis.rules if one.rule == rule)
    assert said == "it was found while the training ran in epoch 2, and no more at its end"
    assert summary_lines(diagnosis)[-1] == f"{rule}: {said}"


def test_the_profile_is_summarised_in_the_recording(recording: Path, dataset: Dataset) -> None:
    diagnose(recording, config=DiagnosisConfig(), dataset=dataset)
    summary = ProfileSummary.model_validate_json((recording / "profile_summary.json").read_text())
    assert summary.steps == 9
    assert [epoch.epoch for epoch in summary.epochs] == [1, 2, 3]
    assert {phase.phase for phase in summary.phases} >= {"forward", "backward", "evaluation"}


def test_a_run_is_like_itself_and_unlike_another(
    recording: Path, dataset: Dataset, tmp_path: Path
) -> None:
    def compared(with_: Path) -> str:
        rule = RuleConfig(parameters={"other_trials": str(with_)})
        config = DiagnosisConfig(rules={"similar_across_runs": rule})
        return outcomes(diagnose(recording, config=config).diagnosis)["similar_across_runs"]

    assert compared(recording) == "clear"
    assert compared(recording_of(dataset, home=tmp_path, seed=7)) == "found"
    with pytest.raises(UserError, match="is no recording"):
        compared(tmp_path / "nowhere")


def test_images_in_both_splits_are_found_by_their_bytes(recording: Path, dataset: Dataset) -> None:
    assert shared_images(dataset) == []
    copies = [replace(record, split="train") for record in dataset.split("validation")]
    leaking = replace(dataset, records=(*copies, *dataset.records))
    assert len(shared_images(leaking)) == len(copies)
    told = diagnose(recording, config=DiagnosisConfig(), dataset=leaking)
    assert outcomes(told.diagnosis)["leakage"] == "found"


def test_a_report_tells_what_the_training_would_have_cost(
    recording: Path, dataset: Dataset
) -> None:
    prices = TrainingPrices("ml.m5.xlarge", usd_per_hour={"ml.m5.xlarge": 0.23})
    told = diagnose_and_report(
        recording, config=DiagnosisConfig(), dataset=dataset, prices=prices, run_name="a-run"
    )
    assert told.diagnosis.usd_per_hour == 0.23
    assert "a-run" in told.report
    assert len(told.report) < 3_000_000
    again = Diagnosis.model_validate_json(told.diagnosis.model_dump_json())
    assert again.usd_per_hour == 0.23
    assert outcomes(again) == outcomes(told.diagnosis)


@pytest.mark.parametrize(
    ("instance_type", "told", "estimated"),
    [
        ("ml.m5.xlarge", "this run on ml.m5.xlarge", False),
        (None, "this run on ml.m5.xlarge would cost", True),
    ],
)
def test_a_report_says_what_the_run_costs_or_would_cost(
    instance_type: str | None, told: str, estimated: bool, recording: Path
) -> None:
    usd = {"ml.m5.xlarge": 0.23, "ml.m5.large": 0.115}
    prices = TrainingPrices(instance_type, usd_per_hour=usd)
    page = diagnose_and_report(recording, config=DiagnosisConfig(), prices=prices).report
    cost = page[page.index("What it cost") :]
    row = cost[cost.index(told) :].partition("</tr>")[0]
    assert ("estimate" in row) == estimated
    assert "$" in row
    assert "the training waited for images" in cost
    assert ("this run on ml.m5.large" in cost) is False


def test_the_rule_that_ended_a_training_early_is_named(recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    shutil.copytree(recording, folder)

    def stopped_by() -> str:
        told = diagnose_and_report(folder, config=DiagnosisConfig())
        named = told.diagnosis.stopped_by
        assert (f"The rule {named} ended the training early" in told.report) == bool(named)
        return named

    assert stopped_by() == ""
    finding = Finding(
        rule="class_missing",
        title="A class has no images",
        severity="error",
        action="stop",
        evidence={},
        meaning="",
        advice=(),
    )
    (folder / "ended_by.json").write_text(finding.model_dump_json())
    assert stopped_by() == "class_missing"
    (folder / "ended_by.json").write_text("{")
    assert stopped_by() == ""


def test_the_lines_for_the_terminal_say_what_was_not_judged() -> None:
    def lines(**outcome: str) -> list[str]:
        values = {"rule": "mine", "title": "Mine", **outcome}
        return list(summary_lines(Diagnosis(findings=(), rules=(RuleOutcome(**values), other))))

    other = RuleOutcome(rule="a", title="A", outcome="clear")
    assert lines(outcome="clear") == ["nothing was found by the 2 rules that applied"]
    assert lines(outcome="not_applicable", reason="no GPU") == [
        "nothing was found by 1 rule that applied; 1 did not apply, the report says why"
    ]
    assert lines(outcome="failed", reason="ZeroDivisionError: division by zero") == [
        "the rule mine could not be evaluated: ZeroDivisionError: division by zero"
    ]
    other = RuleOutcome(rule="a", title="A", outcome="switched_off")
    assert lines(outcome="switched_off") == ["no rule could be applied"]
