"""Diagnose a recorded training: apply the rules that are configured and collect what they find."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from darkroom.base.errors import UserError
from darkroom.base.files import write_text
from darkroom.config.debugging import DiagnosisConfig
from darkroom.data.dataset import Dataset
from darkroom.debugging.profiling.summary import profile_summary
from darkroom.debugging.recording.reader import read_evidence
from darkroom.debugging.rules.runner import check_rules, judge
from darkroom.telemetry.evidence import Evidence
from darkroom.telemetry.findings import Diagnosis, Finding, RuleOutcome
from darkroom.telemetry.operators import OperatorTable, read_operators
from darkroom.telemetry.recording import RecordingFolder, read_lines

# --- images of two splits ---
# Validation images that were trained on.


def shared_images(dataset: Dataset) -> list[tuple[str, str]]:
    """Paths of training and validation images with the same bytes, a pair a validation image.

    What only looks the same, `validate_dataset` reports: it decodes every image anyway.
    """
    trained = {record.sha256: record.path for record in dataset.split("train")}
    return [
        (trained[record.sha256], record.path)
        for record in dataset.split("validation")
        if record.sha256 in trained
    ]


# --- checking ---
# Whether a diagnosis can be made as configured, before anything is trained.


def diagnosis_problems(config: DiagnosisConfig) -> list[str]:
    """Problems, one line each: unknown rules and parameters, files that are not there.

    Files of the user's rules are imported. Nothing is asked of a diagnosis that is off.
    """
    if not config.enabled:
        return []
    return [*_rule_problems(config), *_other_run_problems(config)]


def moved_rule_problems(config: DiagnosisConfig, *, checkout: Path) -> list[str]:
    """Problems of the user's rules, one line each, where only the checkout comes along.

    Args:
        checkout: its folder, which is the working directory there.
    """
    if not config.enabled:
        return []
    files = {custom.function.rpartition(":")[0]: None for custom in config.custom}
    return [
        f"diagnosis.custom: {file!r} does not come along: a run on SageMaker takes the checkout "
        f"with it; put the file there and name it relative to {str(checkout)!r}"
        for file in files
        if Path(file).is_absolute() or not (checkout / file).is_file()
    ]


def other_run(config: DiagnosisConfig) -> RecordingFolder | None:
    """The recording with which `similar_across_runs` is to compare, if it names one."""
    rule = config.rules.get("similar_across_runs")
    named = rule.parameters.get("other_trials") if rule and rule.enabled else None
    if not isinstance(named, str) or not named:
        return None
    folder = Path(named).expanduser()
    inner = folder / "recording"
    return RecordingFolder(inner if inner.is_dir() else folder)


def _rule_problems(config: DiagnosisConfig) -> list[str]:
    try:
        check_rules(config)
    except UserError as error:
        return error.problems
    return []


def _other_run_problems(config: DiagnosisConfig) -> list[str]:
    other = other_run(config)
    if other is None or other.facts.is_file():
        return []
    return [
        "diagnosis.rules.similar_across_runs.parameters.other_trials: "
        f"{str(other.root)!r} is no recording; name a run's folder, .darkroom/runs/<run>"
    ]


# --- diagnosing ---

_PASSED = "it was found while the training ran"


@dataclass(frozen=True)
class DiagnosedTraining:
    """What was recorded, and what is made of it."""

    evidence: Evidence
    diagnosis: Diagnosis
    operators: OperatorTable | None


def diagnose(
    recording: Path, *, config: DiagnosisConfig, dataset: Dataset | None = None
) -> DiagnosedTraining:
    """Judge a recording; the diagnosis is left in it as findings.json.

    Args:
        recording: its folder; a summary of its profile is written there too.
        dataset: what was trained on; with it, images that are in two splits are found.

    Raises:
        UserError: the folder is no recording, or a rule is unknown; nor is that of the run
            with which `similar_across_runs` is to compare.
    """
    evidence = read_evidence(recording)
    if dataset is not None:
        evidence = _with_shared_images(evidence, dataset=dataset)
    place = RecordingFolder(recording)
    judged = judge(_with_other_run(evidence, config=config), config=config)
    diagnosis = judged.model_copy(
        update={"stopped_by": _stopped_by(place), "rules": _with_passed(judged, place=place)}
    )
    write_text(place.profile_summary, profile_summary(evidence).model_dump_json(indent=1))
    write_text(place.findings, diagnosis.model_dump_json(indent=1))
    return DiagnosedTraining(evidence, diagnosis, read_operators(place.profile))


def summary_lines(diagnosis: Diagnosis) -> Sequence[str]:
    """The most important findings, a line each, and the rules that failed.

    One line where there are none: how many rules that says of.
    """
    found = [finding.in_words for finding in diagnosis.headline]
    failed = [
        f"the rule {one.rule} could not be evaluated: {one.reason}"
        for one in diagnosis.rules
        if one.outcome == "failed"
    ]
    passed = [f"{one.rule}: {one.reason}" for one in diagnosis.rules if _has_passed(one)]
    return [*(found + failed or [_nothing(diagnosis)]), *passed]


def _nothing(diagnosis: Diagnosis) -> str:
    outcomes = [one.outcome for one in diagnosis.rules]
    clear, left_out = outcomes.count("clear"), outcomes.count("not_applicable")
    if not clear:
        return "no rule could be applied"
    rules = "1 rule" if clear == 1 else f"the {clear} rules"
    told = f"nothing was found by {rules} that applied"
    return told + (f"; {left_out} did not apply, the report says why" if left_out else "")


def _with_passed(judged: Diagnosis, *, place: RecordingFolder) -> tuple[RuleOutcome, ...]:
    """The outcomes; of a rule that found something only while the training ran, that it did."""
    told: dict[str, str] = {}
    for line in read_lines(place.told):
        when = "" if line.get("epoch") is None else f" in epoch {line['epoch']}"
        told.setdefault(str(line.get("rule")), when)
    return tuple(
        one.model_copy(update={"reason": f"{_PASSED}{told[one.rule]}, and no more at its end"})
        if one.outcome == "clear" and one.rule in told
        else one
        for one in judged.rules
    )


def _has_passed(outcome: RuleOutcome) -> bool:
    return outcome.outcome == "clear" and outcome.reason.startswith(_PASSED)


def _stopped_by(place: RecordingFolder) -> str:
    """The rule that ended the training early, as its recorder left it."""
    try:
        return Finding.model_validate_json(place.ended_by.read_bytes()).rule
    except (OSError, ValidationError):
        return ""


def _with_other_run(evidence: Evidence, *, config: DiagnosisConfig) -> Evidence:
    """With the tensors of the run that `similar_across_runs` compares with, if it names one."""
    other = other_run(config)
    if other is None:
        return evidence
    return replace(evidence, other=read_evidence(other.root).tensors)


def _with_shared_images(evidence: Evidence, *, dataset: Dataset) -> Evidence:
    pairs = shared_images(dataset)
    facts = replace(evidence.facts, shared_images=pairs[:100], shared_count=len(pairs))
    return replace(evidence, facts=facts)
