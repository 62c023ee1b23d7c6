"""No page scrolls sideways, on a phone or a screen, whatever classes and runs are called."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_reports import judge, report
from test_training_page import CLASSES, facts, finding, healthy

from darkroom.compilation.results import CompilationReport, EngineResult
from darkroom.reports.comparison import comparison_page
from darkroom.reports.compilation_page import compilation_page
from darkroom.reports.training_page import training_report
from darkroom.telemetry.findings import Diagnosis
from headless_browser import BROWSER, browsing
from measured_engines import measured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: `apt-get install chromium`"),
]

LONG = "n" * 200
NAMES = [LONG + "1", LONG + "2", "写" * 200, "words and spaces " * 12, "🐶" * 60]


def pages(folder: Path) -> dict[str, str]:
    from test_comparison_page import AFTER, run

    told = finding(rule="r" * 100, title=LONG, where=LONG, evidence={LONG: LONG})
    trained = healthy(
        facts=facts(classes=(LONG, *CLASSES[1:]), hyperparameters={LONG: LONG}, architecture=LONG)
    )
    diagnosis = Diagnosis(findings=(told,), rules=())
    compiled = CompilationReport(
        architecture=LONG,
        version="abc",
        image_size=224,
        machine="a processor " + LONG,
        threads=1,
        rounds=5,
        images=64,
        objective="latency",
        results=(measured("onnxruntime"), EngineResult(engine="openvino", problem=LONG)),
        chosen="onnxruntime",
        reason=LONG,
        tvm_problem=LONG,
    )
    hostile = run(trained, judged=diagnosis, name=LONG)
    (folder / "many").mkdir()
    many, many_images = judge([f"c{n:03}" for n in range(500)], folder=folder / "many", images=1000)
    (folder / "few").mkdir()
    few, few_images = judge(NAMES, folder=folder / "few")
    return {
        "evaluation": report(few, few_images),
        "evaluation of 500 classes": report(many, many_images),
        "training": training_report(trained, diagnosis=diagnosis, run_name=LONG),
        "comparison": comparison_page(replace(hostile), after=AFTER),
        "compilation": compilation_page(compiled),
    }


def test_no_page_scrolls_sideways(tmp_path: Path) -> None:
    files = {}
    for name, page in pages(tmp_path).items():
        files[name] = tmp_path / f"{name}.html"
        files[name].write_text(page, encoding="utf-8")

    async def look() -> dict[tuple[str, int], list[int]]:
        seen = {}
        async with browsing() as tab:
            for name, file in files.items():
                await tab.open(file.as_uri())
                for width in (400, 1280):
                    await tab.look(width=width, height=800)
                    found = await tab.evaluate(
                        "(p => JSON.stringify([p.scrollWidth, innerWidth, p.scrollHeight]))"
                        "(document.scrollingElement)"
                    )
                    seen[name, width] = json.loads(found)
            await tab.open(files["evaluation of 500 classes"].as_uri())
            heading = "document.querySelector('table.sortable thead th')"
            first = "document.querySelector('table.sortable tbody th').textContent"
            await tab.evaluate(f"{heading}.click()")
            assert await tab.evaluate(first) == "c000"
            await tab.evaluate(f"{heading}.click()")
            assert await tab.evaluate(first) == "c499"
        return seen

    seen = asyncio.run(look())
    assert {key: size for key, size in seen.items() if size[0] > size[1]} == {}
    assert seen["evaluation of 500 classes", 1280][2] < 12_000
