"""The overview of a run: one sentence first, whatever came of it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from darkroom.config import EvaluationConfig
from darkroom.data.dataset import ImageRecord
from darkroom.evaluation.evaluate import Evaluation, evaluate
from darkroom.reports.pages import with_way_back
from darkroom.reports.run_page import Failure, Overview, run_page, verdict_of
from darkroom.runs.summary import DataSummary, Summary
from documented_summary import example
from headless_browser import BROWSER, browsing

HOSTILE = "<script>alert('x')</script>"
LONG = "w" * 200


def judged(*, right: int, wrong: int, classes: tuple[str, str] = ("cat", "dog")) -> Evaluation:
    """Half of the images are of each class; `wrong` are taken for the other one."""
    images = right + wrong
    records = [
        ImageRecord(path=f"{n}.png", label=classes[n % 2], split="test", size=1, sha256="")
        for n in range(images)
    ]
    answers = [n % 2 if n < right else 1 - n % 2 for n in range(images)]
    return evaluate(
        np.where(np.eye(2)[answers] > 0, 0.9, 0.1),
        records=records,
        classes=classes,
        config=EvaluationConfig(bootstrap_samples=100),
        seed=1,
    )


def overview() -> Overview:
    summary = Summary.model_validate(example())
    return Overview(
        name=summary.run.name,
        stack="local",
        started=datetime(2026, 3, 1, tzinfo=UTC),
        source="digits",
        pages=["validation", "training", "evaluation"],
        timings=summary.timings,
        places=[("Model bundle", "/x/model")],
        data=summary.data,
        test=judged(right=190, wrong=10),
        validation=judged(right=190, wrong=10),
        gate="test accuracy of at least 0.5",
        endpoint=summary.endpoint,
    )


def test_a_good_run_says_how_good_and_where_it_went() -> None:
    tone, told = verdict_of(overview())
    assert tone == "good"
    assert told.startswith("95.0% of 200 test images are classified right (95 % interval 9")
    assert "deployed" in told


def test_a_model_no_better_than_guessing_is_said_to_be_so() -> None:
    tone, told = verdict_of(replace(overview(), test=judged(right=55, wrong=45)))
    assert tone == "bad"
    assert "not shown to be better than always answering 'cat'" in told


def test_a_refused_model_is_not_deployed_and_says_why() -> None:
    refused = replace(overview(), endpoint=None, endpoint_reason="accuracy 0.4 is below 0.5")
    tone, told = verdict_of(refused)
    assert tone == "warning"
    assert told.endswith("It was not deployed: accuracy 0.4 is below 0.5.")
    assert "accuracy 0.4 is below 0.5" in run_page(refused)


@pytest.mark.parametrize(
    ("kind", "word"),
    [("failed", "failed"), ("stopped", "was stopped"), ("interrupted", "was interrupted")],
)
def test_a_run_without_an_end_shows_what_it_had_and_why(kind: str, word: str) -> None:
    failure = Failure(component="train_model", reason=f"no memory {HOSTILE}", kind=kind)
    page = run_page(
        replace(overview(), failure=failure, test=None, validation=None, endpoint=None, pages=[])
    )
    assert f"The run {word} in train_model" in page
    assert HOSTILE not in page
    assert "no memory" in page
    assert "No model was evaluated" in page
    assert "same command" in page


def test_a_run_that_failed_before_its_first_component_has_a_page_too() -> None:
    nothing = Overview(
        name="a-run",
        stack="local",
        started=datetime(2026, 3, 1, tzinfo=UTC),
        source="digits",
        pages=[],
        timings=None,
        places=[],
        failure=Failure(component="", reason="no disk", kind="failed"),
        gate="none",
    )
    assert "did not get to a data set" in run_page(nothing)


def test_every_report_is_linked_and_leads_back() -> None:
    page = run_page(overview())
    for name in ("validation", "training", "evaluation"):
        assert f'href="{name}.html"' in page
    back = with_way_back(page, to="run.html", text="Overview")
    assert back.count('<a href="run.html">← Overview</a>') == 1


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no headless browser")
def test_class_names_of_200_characters_fit_400_pixels(tmp_path: Path) -> None:
    counts = {split: {LONG: 5, HOSTILE: 5} for split in ("train", "validation", "test")}
    data = DataSummary(source=LONG, fingerprint="f" * 64, counts=counts, left_out={LONG: 3})
    page = tmp_path / "run.html"
    test = judged(right=190, wrong=10, classes=(LONG, HOSTILE))
    page.write_text(run_page(replace(overview(), data=data, test=test)), encoding="utf-8")

    async def width() -> int:
        async with browsing() as tab:
            await tab.look(width=400, height=900)
            await tab.open(page.as_uri())
            assert tab.console == []
            # The window's, scroll bar and all, and what sticks out of it.
            root = "document.documentElement"
            sticks_out = f"{root}.scrollWidth - {root}.clientWidth"
            return int(await tab.evaluate(f"innerWidth + {sticks_out}"))

    assert asyncio.run(width()) == 400
