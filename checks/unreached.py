"""Find what is promised and reached by nothing: `python -m checks.unreached`.

Two kinds are reported, each with its place, and the exit code is 1 if there are any:

- functions, classes, methods, properties and constants that only tests refer to;
- configuration keys that no code reads.
"""

import ast
import keyword
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vulture import Vulture

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES = ("darkroom", "rehearsal", "commands", "steps", "pipelines", "materializers", "stacks")

_CALLED_BY_LIBRARIES = [
    *("ASSOCIATED_TYPES", "ASSOCIATED_ARTIFACT_TYPE"),  # ZenML's materializers, and below
    *("compute_content_hash", "extract_metadata", "save_visualizations"),
    *("check_installation", "config_class", "display_name", "implementation_class", "is_local"),
    "_ensure_valid_tracking_uri",  # MLflow's flavor of ZenML
    "load_context",  # MLflow's PythonModel
    "send_400_response",  # uvicorn's protocol
    "get_renderables",  # rich's Progress
    "_new_conn",  # urllib3's connections
    "on_end",  # starlette's parser of forms
]
"""Methods that override a library's."""

_REGISTERED_BY = [
    *("@model_validator", "@field_validator", "@computed_field", "@click.*", "@step", "@pipeline"),
    *("@operation", "@route", "@recorded", "@awaited", "@media"),  # the rehearsal's tables
]
"""Decorators that hand what they decorate to somebody who calls it."""

_CONFIG = "darkroom/config"
_NO_ATTRIBUTE = re.compile(
    r'^(?P<file>[^:]+):(?P<line>\d+): error: (?:Item )?"(?P<owner>\w+)"(?: of "[^"]+")? '
    r'has no attribute "(?P<key>\w+)"',
    re.MULTILINE,
)


def unreached_names(root: Path) -> list[str]:
    """Name what is defined below `root` and referred to by nothing but tests."""
    finder = Vulture(ignore_names=_CALLED_BY_LIBRARIES, ignore_decorators=_REGISTERED_BY)
    finder.scavenge([root / package for package in PACKAGES] + [root / "run.py"])
    finder.scan("\n".join(f"_.{name}" for name in sorted(_names_in_texts(root))), filename="texts")
    return [
        f"{Path(item.filename).relative_to(root)}:{item.first_lineno}: "
        f"nothing refers to the {item.typ} {item.name!r}"
        for item in finder.get_unused_code()
        if item.typ in {"function", "method", "class", "property"}
        or (item.typ == "variable" and item.name.isupper())
    ]


def _names_in_texts(root: Path) -> set[str]:
    """Collect the names that templates, documented examples, entry points and strings use."""
    found: set[str] = set()
    for template in (root / "darkroom" / "templates").glob("*.j2"):
        found |= set(re.findall(r"\w+", template.read_text(encoding="utf-8")))
    for page in [root / "README.md", *(root / "docs").glob("*.md")]:
        for example in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            found |= set(re.findall(r"\w+", example))
    entry_points = (root / "pyproject.toml").read_text(encoding="utf-8")
    found |= set(re.findall(r'"[\w.]+:(\w+)"', entry_points))
    for path in _sources(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"^[\w.]+[:.](\w+)$", node.value))
    return {name for name in found if name.isidentifier() and not keyword.iskeyword(name)}


def _sources(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        yield from (root / package).rglob("*.py")


def unread_keys(root: Path) -> list[str]:
    """Name the configuration keys below `root` that nothing reads.

    All keys are taken out of a copy of the configuration's classes, and mypy is asked who
    misses them: a key that nobody misses is read by nobody. Validators do not count as readers.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignored = shutil.ignore_patterns("__pycache__")
        for package in PACKAGES:
            shutil.copytree(root / package, copy / package, ignore=ignored)
        keys = dict(_take_out_keys(copy))
        missed = set(_missed_keys(copy, validators=_validators(root)))
    owners_of = _subclasses(root)
    return [
        f"{place}: nothing reads the key {key!r} of {owner}"
        for (owner, key), place in keys.items()
        if not any((reader, key) in missed for reader in owners_of[owner])
    ]


def _config_classes(root: Path) -> Iterator[tuple[Path, ast.ClassDef]]:
    for path in sorted((root / _CONFIG).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield path, node


def _bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def _subclasses(root: Path) -> dict[str, set[str]]:
    """Map each class of the configuration to itself and the classes that inherit its keys."""
    bases = {node.name: _bases(node) for _, node in _config_classes(root)}
    return {
        owner: {owner, *(name for name, inherited in bases.items() if owner in inherited)}
        for owner in bases
    }


def _take_out_keys(copy: Path) -> Iterator[tuple[tuple[str, str], str]]:
    """Remove the keys that hold values, not sections; yield owner and key with their place."""
    sections = {node.name for _, node in _config_classes(copy)}
    for path, node in list(_config_classes(copy)):
        if not _bases(node) or "Loader" in node.name or "Dumper" in node.name:
            continue
        lines = path.read_text(encoding="utf-8").split("\n")
        for statement in node.body:
            if not isinstance(statement, ast.AnnAssign):
                continue
            names = {part.id for part in ast.walk(statement) if isinstance(part, ast.Name)}
            key = ast.unparse(statement.target)
            if names & sections or key == "model_config":
                continue
            first, end = statement.lineno - 1, statement.end_lineno or statement.lineno
            lines[first:end] = [" " * statement.col_offset + "pass"] + [""] * (end - first - 1)
            yield (node.name, key), f"{path.relative_to(copy)}:{statement.lineno}"
        path.write_text("\n".join(lines), encoding="utf-8")


def _missed_keys(copy: Path, *, validators: set[tuple[str, int]]) -> Iterator[tuple[str, str]]:
    (copy / "mypy.ini").write_text(
        "[mypy]\nplugins = pydantic.mypy\ncheck_untyped_defs = true\n"
        "ignore_missing_imports = true\n"
        "[mypy-darkroom.*,rehearsal.*,commands.*,steps.*,pipelines.*,materializers.*,stacks.*]\n"
        "follow_imports = normal\n[mypy-*]\nfollow_imports = skip\n",
        encoding="utf-8",
    )
    cache = CHECKOUT / ".mypy_cache" / "unread_keys"
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), *PACKAGES]
    answer = subprocess.run(  # noqa: S603 - our own interpreter
        command, cwd=copy, capture_output=True, text=True, check=False
    )
    if answer.returncode not in {0, 1}:
        raise RuntimeError(f"mypy failed: {answer.stdout[-2000:]}{answer.stderr[-2000:]}")
    for match in _NO_ATTRIBUTE.finditer(answer.stdout):
        if (match["file"], int(match["line"])) not in validators:
            yield match["owner"], match["key"]


def _validators(root: Path) -> set[tuple[str, int]]:
    """Collect the lines of validators: a key that is only validated is read by nobody."""
    return {
        (str(path.relative_to(root)), line)
        for path, node in _config_classes(root)
        for function in node.body
        if isinstance(function, ast.FunctionDef)
        if any("validator" in ast.unparse(mark) for mark in function.decorator_list)
        for line in range(function.lineno, (function.end_lineno or 0) + 1)
    }


def main() -> int:
    """Print what is reached by nothing; return the exit code."""
    found = unreached_names(CHECKOUT) + unread_keys(CHECKOUT)
    print("\n".join(found) if found else "Everything is reached.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
