"""The pages: complete in themselves, safe whatever a class is called, small enough to send."""

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.config import EvaluationConfig
from darkroom.data.dataset import Dataset, ImageRecord, make_dataset
from darkroom.evaluation.evaluate import Evaluation, evaluate
from darkroom.reports.evaluation_page import evaluation_figures, evaluation_report
from darkroom.reports.pages import data_uri, thumbnail

CONFIG = EvaluationConfig(bootstrap_samples=100, grid_images=8)
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def judged(tmp_path: Path) -> Callable[[list[str]], tuple[Evaluation, Dataset]]:
    return lambda classes: judge(classes, folder=tmp_path)


def judge(classes: list[str], *, folder: Path, images: int = 40) -> tuple[Evaluation, Dataset]:
    """Pictures on the disk, and a model that is right two times in three."""
    generator = np.random.default_rng(0)
    records = []
    for number in range(images):
        noise = generator.integers(256, size=(24, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        label = classes[number % len(classes)]
        records.append(
            ImageRecord(path=f"{number}.png", label=label, split="test", size=1, sha256="")
        )
    dataset = make_dataset(records, root=folder, source="a folder & more")
    logits = generator.normal(size=(images, len(classes)))
    for row, record in enumerate(dataset.records):
        logits[row, classes.index(record.label)] += 1.5
    weights = np.exp(logits)
    evaluation = evaluate(
        weights / weights.sum(axis=1, keepdims=True),
        records=dataset.records,
        classes=classes,
        config=CONFIG,
        seed=1,
    )
    return evaluation, dataset


def report(evaluation: Evaluation, dataset: Dataset) -> str:
    figures = evaluation_figures(evaluation, dataset=dataset, config=CONFIG, seed=1)
    return evaluation_report(evaluation, dataset=dataset, figures=figures, images=8, seed=1)


class _Tags(HTMLParser):
    """Checks that tags are balanced, and keeps what a page would load."""

    EMPTY = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.seen.append(tag)
        self.loaded += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def assert_self_contained(page: str) -> None:
    tags = parsed(page)
    assert {"link", "iframe"}.isdisjoint(tags.seen)
    scripts = re.findall(r"<script[^>]*>", page)
    assert scripts in ([], ["<script>"])  # the one that sorts tables
    assert all(address.startswith("data:image/") for address in tags.loaded)
    assert not re.search(r"url\(|@import|https?://", page)


def test_the_evaluation_report_is_self_contained_and_says_what_matters(judged: Callable) -> None:
    evaluation, dataset = judged(["cat", "dog", "hen"])
    page = report(evaluation, dataset)
    assert_self_contained(page)
    assert "a folder &amp; more" in page
    for metric in evaluation.metrics.values():
        assert f"{metric.value:.4f}" in page
    pair = evaluation.confused_pairs[0]
    assert re.search(rf"<th>{pair.actual}</th><td class=\"bad\">{pair.predicted}</td>", page)
    assert page.index("Accuracy") < page.index("What to look at next") < page.index("by class")
    assert re.search(r"other test images\.\s", page)


def test_the_report_shows_wrong_and_right_predictions_in_their_colours(judged: Callable) -> None:
    page = report(*judged(["cat", "dog", "hen"]))
    captions = re.findall(r'<figcaption class="(\w+)">(\w+) → (\w+), \d+%', page)
    assert len(captions) == 8
    assert all(
        (actual == predicted) == (verdict == "good") for verdict, actual, predicted in captions
    )
    assert {verdict for verdict, _, _ in captions} == {"good", "bad"}


def test_scores_by_class_are_sorted_by_f1(judged: Callable) -> None:
    page = report(*judged(["cat", "dog", "hen"])).partition("Scores by class")[2]
    shares = [float(share) for share in re.findall(r"--share: ([\d.]+)", page)]
    assert len(shares) == 3
    assert shares == sorted(shares)


def test_a_class_name_cannot_inject_markup(judged: Callable) -> None:
    page = report(*judged([HOSTILE, "$\\frac{", "{{ 7 * 7 }}"]))
    assert_self_contained(page)
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page


def test_classes_without_an_image_are_named_apart(tmp_path: Path) -> None:
    evaluation, dataset = judge(["cat", "dog"], folder=tmp_path)
    wider = np.hstack([evaluation.probabilities, np.zeros((40, 1), dtype=np.float32)])
    evaluation = evaluate(
        wider, records=dataset.records, classes=["cat", "dog", "yak"], config=CONFIG, seed=1
    )
    assert "no scores: yak" in report(evaluation, dataset)


def test_a_report_is_repeatable(judged: Callable) -> None:
    evaluation, dataset = judged(["cat", "dog"])
    assert report(evaluation, dataset) == report(evaluation, dataset)


def test_a_report_does_without_pictures_that_are_gone(judged: Callable) -> None:
    evaluation, dataset = judged(["cat", "dog"])
    for picture in dataset.root.glob("*.png"):
        picture.unlink()
    assert_self_contained(report(evaluation, dataset))


@pytest.mark.slow
def test_the_report_of_133_classes_with_100_pictures_stays_below_3_megabytes(
    tmp_path: Path,
) -> None:
    evaluation, dataset = judge([f"breed {n:03}" for n in range(133)], folder=tmp_path, images=1330)
    figures = evaluation_figures(evaluation, dataset=dataset, config=CONFIG, seed=1)
    page = evaluation_report(evaluation, dataset=dataset, figures=figures, images=100)
    assert len(page) < 3e6


def test_tiny_pictures_are_enlarged_and_large_ones_reduced(tmp_path: Path) -> None:
    sizes = {}
    for side in (8, 1000):
        path = tmp_path / f"{side}.png"
        Image.new("RGB", (side, side), "red").save(path)
        address = thumbnail(path, side=160)
        assert address is not None

        content = base64.b64decode(address.partition(",")[2])
        sizes[side] = Image.open(io.BytesIO(content)).size
    assert sizes == {8: (160, 160), 1000: (160, 160)}


def test_a_file_that_is_no_picture_has_no_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no picture")
    assert thumbnail(tmp_path / "note.png") is None
    assert data_uri(b"x") == "data:image/png;base64,eA=="
