"""Our own source files, and what each of them imports, read from its syntax tree."""

import ast
from functools import cache
from pathlib import Path

from checkout import CHECKOUT

ROOTS = ("commands", "darkroom", "materializers", "pipelines", "rehearsal", "stacks", "steps")
FILES = sorted(path for root in ROOTS for path in (CHECKOUT / root).rglob("*.py"))


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of each import, in functions and under TYPE_CHECKING too.

    `from a.b import c` is a.b.c, whether c is a module or not.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def within(name: str, package: str) -> bool:
    """Whether a dotted name is the package's or lies below it."""
    return name == package or name.startswith(f"{package}.")
