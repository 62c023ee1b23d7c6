"""Validating a data set before anything is spent on it.

inspection   decode every image, note what it is
checks       files, duplicates and classes: findings
report       what was found, as data; page: the same for people
validating   all of it in one call, and what follows from it
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from statistics import median

from darkroom.base.errors import UserError
from darkroom.base.progress import SILENT, Progress
from darkroom.config import DataConfig
from darkroom.data.dataset import Dataset
from darkroom.images import ImageLimits
from darkroom.validation import checks
from darkroom.validation.checks import check_classes, left_out
from darkroom.validation.inspection import Inspection, inspect_images
from darkroom.validation.report import Finding, Spread, Statistics, ValidationReport

__all__ = [
    "Finding",
    "ValidationReport",
    "check_classes",
    "clean",
    "left_out",
    "raise_if_unusable",
    "validate",
]


_FILES_SHOWN = 20

_REASONS = {
    "undecodable": "cannot be decoded",
    "leakage": "also in another split",
    "near_duplicates": "almost the same as in another split",
}


def validate(
    dataset: Dataset, *, config: DataConfig, progress: Progress = SILENT
) -> ValidationReport:
    """Decode every image and look for what would spoil training or its evaluation.

    Bad images are findings, not errors: `raise_if_unusable` decides, `clean` leaves out.
    """
    limits = ImageLimits(
        pixels=config.maximum_pixels,
        aspect_ratio=config.maximum_aspect_ratio,
        section="data",
    )
    inspection = inspect_images(dataset, limits=limits, progress=progress)
    about_files = list(_check_files(inspection, config=config, progress=progress))
    remaining = _leave_out(dataset, findings=about_files)
    broken = Counter(
        record.label
        for record, facts in zip(dataset.records, inspection.facts, strict=True)
        if not facts.is_usable and config.on_undecodable == "leave_out"
    )
    # What is left out here has findings of its own.
    usable = replace(remaining, left_out=dataset.left_out)
    findings = [
        *about_files,
        *checks.check_classes(usable, config=config, broken=broken),
    ]
    note = checks.not_compared(inspection)
    return ValidationReport(
        source=dataset.source,
        fingerprint=dataset.fingerprint,
        files_checked=len(dataset.records),
        findings=tuple(sorted(findings, key=lambda finding: finding.action != "stop")),
        notes=(note,) if note else (),
        statistics=_statistics(inspection, remaining=remaining),
        reading=dataset.provenance.reading,
        source_left_out=tuple(checks.left_out(dataset)),
    )


def clean(dataset: Dataset, report: ValidationReport) -> Dataset:
    """The data set without what the report leaves out, counted by reason."""
    return _leave_out(dataset, findings=report.findings)


def raise_if_unusable(report: ValidationReport) -> None:
    """Stop where the configuration says so, or where training is impossible.

    Raises:
        UserError: each finding that stops, with its first 20 files.
    """
    if report.errors:
        raise UserError([_problem(finding) for finding in report.errors])


def _check_files(
    inspection: Inspection, *, config: DataConfig, progress: Progress
) -> Iterator[Finding]:
    yield from checks.undecodable(inspection, policy=config.on_undecodable)
    yield from checks.duplicates(inspection, policy=config.on_leakage)
    yield from checks.near_duplicates(
        inspection,
        policy=config.on_near_duplicates,
        distance=config.near_duplicate_distance,
        progress=progress,
    )
    yield from checks.wrong_extensions(inspection)
    yield from checks.odd_modes(inspection)
    yield from checks.extreme_sizes(inspection)


def _leave_out(dataset: Dataset, *, findings: Iterable[Finding]) -> Dataset:
    for finding in findings:
        if finding.action == "leave_out":
            dataset = dataset.without(finding.files, reason=_REASONS[finding.kind])
    return dataset


def _problem(finding: Finding) -> str:
    lines = [f"{finding.message}. {finding.advice}"]
    for path in finding.files[:_FILES_SHOWN]:
        note = finding.notes.get(path)
        lines.append(f"  {path}: {note}" if note else f"  {path}")
    rest = len(finding.files) - _FILES_SHOWN
    return "\n".join([*lines, *([f"  and {rest:,} more"] if rest > 0 else [])])


def _statistics(inspection: Inspection, *, remaining: Dataset) -> Statistics:
    usable = [facts for facts in inspection.facts if facts.is_usable]
    return Statistics(
        counts=inspection.dataset.counts(),
        remaining=remaining.counts(),
        width=_spread([facts.width for facts in usable]),
        height=_spread([facts.height for facts in usable]),
        modes=dict(Counter(facts.mode for facts in usable).most_common()),
        formats=dict(Counter(facts.format for facts in usable).most_common()),
        bytes=sum(record.size for record in inspection.dataset.records),
    )


def _spread(values: list[int]) -> Spread | None:
    if not values:
        return None
    return Spread(minimum=min(values), median=round(median(values)), maximum=max(values))
