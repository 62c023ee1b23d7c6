"""The summary file: its schema, its page, and what a person sees of it."""

import io
import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError
from rich.console import Console

from darkroom.config.sections import Metric
from darkroom.runs.summary import DiagnosisSummary, Summary, write_summary
from darkroom.runs.summary_table import render
from darkroom.telemetry.findings import Diagnosis, Finding
from documented_summary import PAGE, example


def shown(content: dict, *, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(render(Summary.model_validate(content)), soft_wrap=True)
    return stream.getvalue()


def keys(content: dict, *, prefix: str = "") -> set[str]:
    found = set()
    for name, value in content.items():
        found.add(f"{prefix}{name}")
        if isinstance(value, dict):
            found |= keys(value, prefix=f"{prefix}{name}.")
    return found


def test_the_documented_example_is_valid_and_complete() -> None:
    content = example()
    written = Summary.model_validate(content).model_dump(mode="json")
    assert written == content
    assert set(Summary.model_fields) == set(content)


def test_every_split_of_the_example_has_the_headline_metrics() -> None:
    for split in ("validation", "test"):
        assert set(get_args(Metric)) <= set(example()["metrics"][split])


def test_the_page_explains_every_key_of_the_schema() -> None:
    table = PAGE.read_text().partition("## Keys")[2]
    for key in ("run", "diagnosis", "timings", "artifacts", "endpoint"):
        for name in example()[key]:
            assert f"`{key}.{name}" in table, f"{key}.{name}"


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    summary = Summary.model_validate(example())
    write_summary(summary, tmp_path / "summary.json")
    text = (tmp_path / "summary.json").read_text()
    assert Summary.model_validate_json(text) == summary
    assert keys(json.loads(text)) == keys(example())
    assert list(tmp_path.iterdir()) == [tmp_path / "summary.json"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema_version", 3),
        ("surprise", 1),
        ("endpoint", None),
        ("endpoint_reason", "refused, and yet deployed"),
        ("metrics", {"test": {"accuracy": {"value": 1.0}}}),
        ("metrics", {"holdout": {}}),
    ],
)
def test_a_summary_that_breaks_the_schema_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Summary.model_validate(example() | {key: value})


def test_figures_that_json_cannot_hold_are_refused() -> None:
    content = example()
    content["metrics"]["test"]["log_loss"]["value"] = float("nan")
    with pytest.raises(ValidationError, match="finite"):
        Summary.model_validate(content)


def test_a_person_sees_values_with_intervals_and_where_to_look_next() -> None:
    text = shown(example())
    assert "0.9815 [0.9630, 0.9963]" in text
    assert "python run.py ui" in text
    assert "python run.py predict IMAGE" in text
    assert example()["artifacts"]["reports"]["evaluation"] in text
    assert "100.0% of 32 images" in text
    assert "reused ingest_images, validate_dataset" in text


def test_a_person_sees_what_was_found_in_the_training_and_how_to_compare_it() -> None:
    content = example()
    text = shown(content)
    assert "1 warning; first: The network learns its images by heart" in text
    assert f"python run.py compare OTHER_RUN {content['run']['name']}" in text
    content["diagnosis"] |= {"findings": [], "stopped_by": "class_missing"}
    assert "nothing was found; stopped early by class_missing" in shown(content)
    text = shown(content | {"diagnosis": None})
    assert "diagnosis" not in text
    assert "run.py compare " not in text


def test_findings_are_summarised_without_their_evidence() -> None:
    finding = Finding(
        rule="overfit",
        title="The network learns its images by heart",
        severity="warning",
        action="warn",
        step=63,
        evidence={"ratio": 2.0},
        meaning="It is surer.",
        advice=("add images",),
    )
    written = DiagnosisSummary.of(Diagnosis(findings=(finding,), rules=()))
    assert written.model_dump(mode="json") == example()["diagnosis"]


def test_the_table_fits_a_narrow_terminal_and_leaves_paths_whole() -> None:
    content = example()
    content["artifacts"]["bundle"] = "/a/very" + "/long" * 30 + "/model.tar.gz"
    text = shown(content, width=80)
    table = [line for line in text.splitlines() if "│" in line or "┃" in line]
    assert max(map(len, table)) <= 80
    assert content["artifacts"]["bundle"] in text


def test_a_refused_deployment_says_why() -> None:
    reason = "accuracy 0.4100 is below 0.5"
    text = shown(example() | {"endpoint": None, "endpoint_reason": reason})
    assert f"none: {reason}" in text


def test_names_with_brackets_are_shown_as_they_are() -> None:
    content = example()
    content["artifacts"]["bundle"] = "/tmp/[red]x[/red]/model.tar.gz"
    assert "[red]x[/red]" in shown(content)
