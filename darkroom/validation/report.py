"""What a validation found, as plain data."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

Action = Literal["stop", "leave_out", "warn"]

Kind = Literal[
    "undecodable",
    "wrong_extension",
    "leakage",
    "duplicates",
    "label_conflicts",
    "near_duplicates",
    "near_label_conflicts",
    "odd_modes",
    "extreme_sizes",
    "too_few_classes",
    "empty_splits",
    "classes_missing",
    "tiny_classes",
    "imbalance",
    "groups_across_splits",
    "files_left_out",
    "class_losses",
    "similar_classes",
]


def consequence(action: Action, *, key: str) -> str:
    """What happens to the files of a finding, by the configuration's `key`."""
    return {
        "stop": f"Repair or remove them, or set {key} to leave_out.",
        "leave_out": f"They are left out, as {key} says.",
        "warn": f"They stay in; set {key} to leave_out to be rid of them.",
    }[action]


class Finding(BaseModel):
    """One kind of problem, with everything that has it."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    action: Action
    """'stop': training must not start; 'leave_out': `clean` removes the files; 'warn'."""
    message: str
    """One sentence: how many of what."""
    advice: str
    """One sentence: what follows, and what to do about it."""
    files: tuple[str, ...] = ()
    """All files concerned, as paths below the data set's root."""
    notes: dict[str, str] = {}
    """What is to be said about single files, by path."""
    counterparts: dict[str, str] = {}
    """The other file of a pair, by path: the copy that stays where this one is left out."""
    classes: tuple[str, ...] = ()
    """All classes concerned, of findings about classes."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def severity(self) -> Literal["error", "warning"]:
        """'error' where the finding stops the run."""
        return "error" if self.action == "stop" else "warning"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def count(self) -> int:
        """Files concerned, or classes where the finding is about classes."""
        return len(self.files) or len(self.classes) or 1


class Spread(BaseModel):
    """The middle and the ends of some whole numbers."""

    minimum: int
    median: int
    maximum: int


class Statistics(BaseModel):
    """What the data set holds, bad images included."""

    counts: dict[str, dict[str, int]]
    """Images by split and class."""
    remaining: dict[str, dict[str, int]]
    """Images by split and class, without those that are left out."""
    width: Spread | None
    """Pixels; None where no image could be decoded."""
    height: Spread | None
    """Pixels; None where no image could be decoded."""
    modes: dict[str, int]
    """Images by Pillow's mode, the most frequent first."""
    formats: dict[str, int]
    """Images by format of their content, the most frequent first."""
    bytes: int
    """Of all files."""


class LeftOut(BaseModel):
    """Files of the source that are not in the data set, for one reason."""

    reason: str
    count: int
    examples: tuple[str, ...] = ()
    """The first of them."""


class ValidationReport(BaseModel):
    """Everything that a validation looked at and found."""

    schema_version: Literal[1] = 1
    source: str
    fingerprint: str
    """Of the data set that was validated, before anything was left out."""
    files_checked: int
    findings: tuple[Finding, ...]
    """Those that stop the run first."""
    notes: tuple[str, ...]
    """What was not checked, and why."""
    statistics: Statistics
    reading: str = ""
    """What was taken for splits and classes."""
    source_left_out: tuple[LeftOut, ...] = ()
    """What the source holds and the data set does not, the most frequent reason first."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop the run."""
        return tuple(finding for finding in self.findings if finding.action == "stop")

    def finding(self, kind: Kind) -> Finding | None:
        """The finding of one kind, if there is one."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    @property
    def left_out(self) -> frozenset[str]:
        """Paths of all images that `clean` removes."""
        return frozenset(
            path
            for finding in self.findings
            if finding.action == "leave_out"
            for path in finding.files
        )
