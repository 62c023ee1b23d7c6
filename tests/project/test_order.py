"""Who may import whom: the order of docs/architecture.md, held by every file, without exception."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from checkout import CHECKOUT

ROOTS = ("darkroom", "rehearsal", "stacks", "materializers", "steps", "pipelines", "commands")
ORDER = tuple(
    re.findall(r"^\d+\. `([\w.]+)`", (CHECKOUT / "docs" / "architecture.md").read_text(), re.M)
)
"""From the ground up. The longest name that fits a module is its package."""
FILES = sorted(path for root in ROOTS for path in (CHECKOUT / root).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def package_of(module: str) -> str:
    fitting = [name for name in ORDER if module == name or module.startswith(name + ".")]
    return max(fitting, key=len, default="")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Modules of ours that a file imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] in ROOTS:
                known = name if name in MODULES else name.rpartition(".")[0]
                assert known in MODULES, f"{path}:{node.lineno}: {name} is nowhere"
                yield node.lineno, known


def test_no_file_imports_upwards_or_sideways() -> None:
    wrong = []
    for path in FILES:
        mine = package_of(module_of(path))
        for line, target in imports(path):
            theirs = package_of(target)
            if theirs not in (mine, "darkroom") and ORDER.index(theirs) > ORDER.index(mine):
                wrong.append(f"{path.relative_to(CHECKOUT)}:{line} ({mine}) imports {target}")
    assert wrong == []


def test_every_module_has_a_rank_and_every_rank_a_module() -> None:
    assert {module for module in MODULES if not package_of(module)} == set()
    assert {package_of(module) for module in MODULES} == set(ORDER)
    assert len(ORDER) == len(set(ORDER))
