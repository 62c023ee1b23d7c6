"""Rules of the user's: a function in a Python file, `FILE.py:FUNCTION`.

    def my_rule(evidence, *, threshold=3.0) -> list[Hit]: …

The first line of its docstring is the finding's title, the rest what it means. A class that
derives from smdebug's Rule works too; see smdebug_rules.
"""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from darkroom.errors import UserError
from darkroom.rules.advising import always
from darkroom.rules.evidence import Evidence
from darkroom.rules.findings import Hit
from darkroom.rules.rule import Evaluate, Rule, Value

_LONGEST_TITLE = 80


def load_custom_rule(function: str) -> Rule:
    """The rule that `FILE.py:FUNCTION` names.

    Raises:
        UserError: no such file or function, a file that cannot be imported, or a function
            that does not take evidence.
    """
    file, _, name = function.rpartition(":")
    module = _module(Path(file), named=function)
    found = getattr(module, name, None)
    if not callable(found):
        names = [n for n, value in vars(module).items() if _is_own_function(value, module)]
        raise UserError(
            f"diagnosis.custom: {file!r} has no function {name!r}; it has {names or 'none'}"
        )
    if inspect.isclass(found):
        from darkroom.rules.smdebug_rules import foreign_rule

        found = foreign_rule(found)
    problem = _signature_problem(found)
    if problem:
        raise UserError(f"diagnosis.custom: {function!r} {problem}")
    title, meaning = _texts(found, name=name)
    return Rule(
        name=name,
        title=title,
        severity="warning",
        meaning=meaning,
        advice=always(),
        evaluate=_checked(found),
    )


def files_of(function: str) -> list[Path]:
    """The file of a rule, and the files beside it, or below the working directory, it imports.

    What is installed is not among them.
    """
    found: list[Path] = []
    waiting = [Path(function.rpartition(":")[0])]
    while waiting:
        path = waiting.pop()
        if path.is_file() and path not in found:
            found.append(path)
            waiting.extend(_imported_beside(path))
    return found


def _imported_beside(path: Path) -> list[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []  # importing the rule says what is wrong with it
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    places = (path.parent, Path())
    bases = [place.joinpath(*name.split(".")) for name in names for place in places]
    return [file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py")]


def _module(path: Path, *, named: str) -> ModuleType:
    if not path.is_file():
        raise UserError(
            f"diagnosis.custom: there is no file {str(path)!r} (of {named!r}, looked for from "
            f"{str(Path.cwd())!r}); write FILE.py:FUNCTION"
        )
    name = f"darkroom_custom_rule_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 - it ends in .py
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's file does
        raise UserError(
            f"diagnosis.custom: {str(path)!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _is_own_function(value: object, module: ModuleType) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__


def _signature_problem(function: Evaluate) -> str:
    """Why a function cannot be a rule; empty: it can."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        return "takes no evidence: write def my_rule(evidence, *, threshold=3.0)"
    others = [
        parameter.name
        for parameter in parameters[1:]
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        or parameter.default is inspect.Parameter.empty
    ]
    if others:
        return f"has parameters without * or a default: {', '.join(others)}"
    return ""


def _texts(function: Evaluate, *, name: str) -> tuple[str, str]:
    first, _, rest = (inspect.getdoc(function) or "").partition("\n")
    title = first.strip().rstrip(".")[:_LONGEST_TITLE] or name.replace("_", " ").capitalize()
    return title, " ".join(rest.split()) or f"The condition of your rule {name} was met."


def _checked(function: Evaluate) -> Evaluate:
    """The function with its signature, whose result is seen to be hits."""

    def evaluate(evidence: Evidence, **parameters: Value) -> Sequence[Hit]:
        hits = function(evidence, **parameters)
        wrong = not isinstance(hits, list | tuple) or not all(isinstance(h, Hit) for h in hits)
        if wrong:
            raise TypeError(f"it has to return a list of Hit, not {hits!r}"[:200])
        return hits

    evaluate.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return evaluate
