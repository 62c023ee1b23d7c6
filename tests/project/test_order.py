"""Who may import whom: the order of docs/architecture.md, held by every file, without exception."""

import re
from collections.abc import Iterator
from pathlib import Path

from checkout import CHECKOUT
from source_code import FILES, ROOTS, imports

ORDER = tuple(
    re.findall(r"^\d+\. `([\w.]+)`", (CHECKOUT / "docs" / "architecture.md").read_text(), re.M)
)
"""From the ground up. The longest name that fits a module is its package."""


def module_of(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def package_of(module: str) -> str:
    fitting = [name for name in ORDER if module == name or module.startswith(name + ".")]
    return max(fitting, key=len, default="")


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Modules of ours that a file imports, with the line."""
    for line, name in imports(path):
        if name.split(".")[0] in ROOTS:
            known = name if name in MODULES else name.rpartition(".")[0]
            assert known in MODULES, f"{path}:{line}: {name} is nowhere"
            yield line, known


def test_no_file_imports_upwards_or_sideways() -> None:
    wrong = []
    for path in FILES:
        mine = package_of(module_of(path))
        for line, target in imported_modules(path):
            theirs = package_of(target)
            if theirs not in (mine, "darkroom") and ORDER.index(theirs) > ORDER.index(mine):
                wrong.append(f"{path.relative_to(CHECKOUT)}:{line} ({mine}) imports {target}")
    assert wrong == []


def test_every_module_has_a_rank_and_every_rank_a_module() -> None:
    assert {module for module in MODULES if not package_of(module)} == set()
    assert {package_of(module) for module in MODULES} == set(ORDER)
    assert len(ORDER) == len(set(ORDER))
