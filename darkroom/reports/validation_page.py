"""The validation report as a page: findings with examples, classes, sizes."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from darkroom.data.dataset import Dataset
from darkroom.reports.pages import render_page, thumbnail
from darkroom.validation.report import Finding, ValidationReport

_EXAMPLES = 6
_FILES_LISTED = 200
_EXAMPLES_LISTED = 5
_SAMPLES_OF_A_CLASS = 3
_CLASSES_WITH_SAMPLES = 60
_MAX_CHARACTERS_OF_PICTURES = 800_000
_SMALL_PICTURE = 64

_ACTIONS = {"stop": "Stops the run", "leave_out": "Left out", "warn": "Warning"}


@dataclass(frozen=True)
class _Example:
    """One picture, or a pair of look-alikes."""

    pictures: list[str]
    captions: list[str]


@dataclass(frozen=True)
class _Cell:
    count: int
    share: float
    """Of the largest class of the split, 0 to 1."""


@dataclass(frozen=True)
class _ClassRow:
    name: str
    cells: list[_Cell]
    samples: list[str]


class _Pictures:
    """Thumbnails of a data set, until the page is large enough."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._characters = 0

    def thumbnail(self, path: str, *, side: int) -> str | None:
        """A data URI; None where the image is broken or there are pictures enough."""
        if self._characters > _MAX_CHARACTERS_OF_PICTURES:
            return None
        picture = thumbnail(self._dataset.root / path, side=side)
        self._characters += len(picture or "")
        return picture


def report_html(report: ValidationReport, dataset: Dataset) -> str:
    """A self-contained page of about a megabyte at most.

    Args:
        dataset: the data set that was validated, for the examples.
    """
    pictures = _Pictures(dataset)
    examples = {finding.kind: _examples(finding, pictures=pictures) for finding in report.findings}
    classes = _class_rows(report, dataset=dataset, pictures=pictures)
    width = report.statistics.width
    return render_page(
        "validation.html.j2",
        report=report,
        actions=_ACTIONS,
        cards=_cards(report, dataset=dataset),
        examples=examples,
        classes=classes,
        has_samples=any(row.samples for row in classes),
        left_out=len(report.left_out),
        not_there=_not_there(report),
        listed=_FILES_LISTED,
        pixelated=width is not None and width.median < _SMALL_PICTURE,
    )


def _cards(report: ValidationReport, *, dataset: Dataset) -> list[tuple[str, str, str, str]]:
    """Label, value, note and verdict of each key figure."""
    errors = len(report.errors)
    left_out = len(report.left_out) + sum(one.count for one in report.source_left_out)
    others = len(report.findings) - errors
    megabytes = report.statistics.bytes / 1e6
    return [
        ("Images checked", f"{report.files_checked:,}", f"{megabytes:,.1f} MB", ""),
        ("Classes", f"{len(dataset.classes):,}", "", ""),
        ("Stop the run", f"{errors}", "findings", "bad" if errors else "good"),
        ("To look at", f"{others}", "findings", "warning" if others else "good"),
        ("Left out", f"{left_out:,}", "files", "warning" if left_out else ""),
    ]


def _not_there(report: ValidationReport) -> list[tuple[str, int, tuple[str, ...]]]:
    """Reason, number and examples of what the source holds and the training does not see."""
    by_finding = [
        (finding.message, finding.count, finding.files[:_EXAMPLES_LISTED])
        for finding in report.findings
        if finding.action == "leave_out"
    ]
    return [(one.reason, one.count, one.examples) for one in report.source_left_out] + by_finding


def _examples(finding: Finding, *, pictures: _Pictures) -> list[_Example]:
    """The first files, each with its counterpart; a pair is shown once."""
    examples: list[_Example] = []
    shown: set[str] = set()
    for path in finding.files:
        if path in shown or len(examples) == _EXAMPLES:
            continue
        pair = [path, *filter(None, [finding.counterparts.get(path)])]
        shown.update(pair)
        found = [picture for part in pair if (picture := pictures.thumbnail(part, side=120))]
        if found:
            examples.append(_Example(found, pair))
    return examples


def _class_rows(
    report: ValidationReport, *, dataset: Dataset, pictures: _Pictures
) -> list[_ClassRow]:
    by_split = report.statistics.remaining
    columns = [*by_split.values(), _totals(by_split)]
    samples = _samples(dataset, without=report.left_out)
    return [
        _ClassRow(
            name=name,
            cells=[_cell(column, name=name) for column in columns],
            samples=[
                picture
                for path in samples[name]
                if (picture := pictures.thumbnail(path, side=64)) is not None
            ],
        )
        for name in dataset.classes
    ]


def _samples(dataset: Dataset, *, without: frozenset[str]) -> Mapping[str, list[str]]:
    """The first images of each class, where there are not too many classes."""
    samples: dict[str, list[str]] = defaultdict(list)
    if len(dataset.classes) <= _CLASSES_WITH_SAMPLES:
        for record in dataset.records:
            of_class = samples[record.label]
            if len(of_class) < _SAMPLES_OF_A_CLASS and record.path not in without:
                of_class.append(record.path)
    return samples


def _totals(by_split: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = defaultdict(int)
    for counts in by_split.values():
        for name, count in counts.items():
            totals[name] += count
    return totals


def _cell(column: Mapping[str, int], *, name: str) -> _Cell:
    largest = max(column.values(), default=0)
    return _Cell(column[name], round(column[name] / largest, 3) if largest else 0.0)
