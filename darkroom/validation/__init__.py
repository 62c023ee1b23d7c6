"""Validating a data set before anything is spent on it.

inspection   decode every image, note what it is
checks       files, duplicates and classes: findings
report       what was found, as data; page: the same for people
validating   all of it in one call, and what follows from it
"""

from darkroom.validation.class_checks import check_classes, left_out
from darkroom.validation.page import report_html
from darkroom.validation.report import Finding, ValidationReport
from darkroom.validation.validating import clean, raise_if_unusable, validate

__all__ = [
    "Finding",
    "ValidationReport",
    "check_classes",
    "clean",
    "left_out",
    "raise_if_unusable",
    "report_html",
    "validate",
]
