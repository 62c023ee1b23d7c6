"""The documentation says what the code does."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from checkout import CHECKOUT
from darkroom.debugging.rules.catalogue import RULES

PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]


def test_the_configuration_page_is_the_one_that_the_code_gives() -> None:
    path = CHECKOUT / "docs" / "configuration_reference.py"
    spec = importlib.util.spec_from_file_location("configuration_reference", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    message = "run `make docs`"
    assert (CHECKOUT / "docs" / "configuration.md").read_text() == module.reference(), message


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_names_every_component() -> None:
    text = (CHECKOUT / "README.md").read_text()
    components = [
        function.name
        for path in (CHECKOUT / "steps").glob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        and any(ast.unparse(mark).startswith("step") for mark in function.decorator_list)
    ]
    assert {"ingest_images", "train_model", "predict_images"} <= set(components)
    assert [name for name in components if f"`{name}`" not in text] == []


def test_the_readme_counts_the_rules() -> None:
    counts = re.findall(r"(\d+) rules", (CHECKOUT / "README.md").read_text())
    assert {int(count) for count in counts} == {len(RULES)}


def test_the_readmes_tree_names_every_module_of_the_core() -> None:
    text = (CHECKOUT / "README.md").read_text()
    top = {
        path.name
        for path in (CHECKOUT / "darkroom").iterdir()
        if not path.name.startswith("__") and path.name != "py.typed"
    }
    assert [name for name in sorted(top) if name not in text] == []


def test_the_walks_of_the_architecture_name_what_there_is() -> None:
    """Files and folders of its tables and the glossary's, and functions in those files."""
    wrong = []
    for page in ("architecture.md", "glossary.md"):
        for row in (CHECKOUT / "docs" / page).read_text().splitlines():
            if not row.startswith("| "):
                continue
            names = re.findall(r"`([\w./]+)`", row.rpartition(" | ")[2] or row)
            paths = [name for name in names if "/" in name and not name.startswith(".")]
            wrong += [path for path in paths if not (CHECKOUT / path).exists()]
            files = [CHECKOUT / path for path in paths if path.endswith(".py")]
            text = "".join(file.read_text() for file in files if file.exists())
            wrong += [
                f"{page}: {name}"
                for name in names
                if files and name not in paths and not defines(text, name.rpartition(".")[2])
            ]
    assert wrong == []


def defines(text: str, name: str) -> bool:
    return bool(re.search(rf"^\s*(async )?(def|class) {name}\b", text, re.M))
