"""A run that compiles: the engine that it chose evaluates, serves, and classifies batches."""

import csv
import subprocess
from pathlib import Path

import pytest
import requests

from pictures import write_image_folder
from workplace import CONFIG, Workplace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_COMPILING = """
compilation: {enabled: true, engines: [openvino], rounds: 1, images: 6}
batch: {split: test}
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("compiled")
    write_image_folder(folder / "images", per_class=10)
    (folder / "tiny.yaml").write_text(CONFIG + _COMPILING)
    return Workplace(folder)


@pytest.fixture(scope="module")
def summary(workplace: Workplace) -> dict:
    return workplace.main_job("--set", "tuning.enabled=false")


def test_the_chosen_engine_evaluates_answers_and_classifies_the_batch(summary: dict) -> None:
    engine = {"compiled_for": "openvino", "evaluated_by": "openvino", "fallback": ""}
    assert summary["engine"] == engine
    assert summary["endpoint"]["engine"] == "openvino"
    assert summary["endpoint"]["agreement"] == 1.0
    assert summary["batch"]["engine"] == "openvino"
    page = Path(summary["artifacts"]["reports"]["evaluation"]).read_text()
    assert "answered by openvino" in page


def test_serve_takes_the_engine_of_the_bundle(workplace: Workplace, summary: dict) -> None:
    with subprocess.Popen(
        workplace.command("serve", summary["artifacts"]["bundle"], "--port", "0"),
        env=workplace.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        try:
            lines = iter(server.stdout.readline, "")
            said = next(line for line in lines if "http://127.0.0.1" in line)
            url = said.split()[-1]
            image = next((workplace.folder / "images").rglob("*.png")).read_bytes()
            answer = requests.post(f"{url}/invocations", data=image, timeout=60).json()
        finally:
            server.terminate()
    assert answer["engine"] == "openvino"


def test_a_batchs_table_says_which_engine_made_it(workplace: Workplace, summary: dict) -> None:
    result = workplace.run("batch", "images", "--out", "rows.csv")
    assert result.returncode == 0, result.stdout + result.stderr
    with (workplace.folder / "rows.csv").open() as file:
        assert {row["engine"] for row in csv.DictReader(file)} == {"openvino"}


def test_compile_takes_as_many_images_as_configured(workplace: Workplace, summary: dict) -> None:
    result = workplace.run(
        "compile", summary["artifacts"]["bundle"], "--set", "compilation.images=5",
        "--set", "compilation.rounds=1",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    page = Path(result.stdout.rpartition("report: ")[2].strip()).read_text()
    assert "Compared with torch on 5 images" in page
