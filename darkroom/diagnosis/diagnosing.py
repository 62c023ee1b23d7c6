"""A recording judged as a whole, with what only the data set tells."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from darkroom.capture.layout import RecordingFolder
from darkroom.capture.lines import read_lines
from darkroom.capture.reading import read_evidence
from darkroom.config.debugging import DiagnosisConfig
from darkroom.dataset import Dataset
from darkroom.diagnosis.checking import other_run
from darkroom.diagnosis.result import Diagnosis, RuleOutcome
from darkroom.diagnosis.shared_images import shared_images
from darkroom.files import write_text
from darkroom.profiling.operators_table import OperatorTable, read_operators
from darkroom.profiling.summary import profile_summary
from darkroom.rules.evidence import Evidence
from darkroom.rules.findings import Finding
from darkroom.rules.judging import judge

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
