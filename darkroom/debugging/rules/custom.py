"""People's own rules: functions of this project's kind, and smdebug's rules by its extra."""

import ast
import importlib.util
import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from darkroom.base.errors import UserError
from darkroom.debugging.rules.catalogue import RULES
from darkroom.debugging.rules.rule import Evaluate, NotApplicableError, Rule, Value, always
from darkroom.telemetry.evidence import (
    Evidence,
    Kind,
    Mode,
    RunMetadata,
    Statistics,
    StepLog,
    TensorSource,
)
from darkroom.telemetry.findings import Hit

# --- aws defaults ---
# Parameters with which our rules decide as SageMaker Debugger's do.
#
# AWS' documentation of Debugger's built-in rules, 2023. Where ours differ, a healthy training
# of torchvision's networks meets the original's condition; each rule's docstring says why.

AWS_DEFAULTS: Mapping[str, Mapping[str, Value]] = {
    "vanishing_gradient": {
        "persistence": 1,
        "threshold_layers": 0.0,
        "biases": True,
        "while_loss_above": 0.0,
    },
    "exploding_tensor": {"gradient_persistence": 1},
    "dead_relu": {"persistence": 1, "images": 0},
    "poor_weight_initialization": {
        "threshold": 10.0,
        "distribution_range": 0.001,
        "patience": 5,
        "steps": 10,
        "initial_loss_ratio": None,
    },
    "saturated_activation": {"persistence": 1, "images": 0},
    "weight_update_ratio": {"persistence": 1, "rate_share": 0.0, "negligible": 0.0},
    "all_zero": {"persistence": 1},
    "class_imbalance": {"minimum_images": 0},
    "confusion": {"min_diag": 0.9, "max_off_diag": 0.1, "minimum_images": 0},
    "loss_not_decreasing": {
        "num_steps": 10,
        "increase_threshold_percent": 5.0,
        "smoothing": 1,
        "while_loss_above": 0.0,
    },
    "overfit": {"patience": 1, "ratio_threshold": 0.1, "gap": 0.0, "gap_of_chance": 0.0},
    "unchanged_tensor": {"span": 0, "rate_share": 0.0},
    "check_input_images": {
        "threshold_mean": 0.2,
        "threshold_samples": 500,
        "only_mean": True,
    },
}
"""By rule: what has to be set, beside the parameters whose defaults are AWS' anyway."""


# --- windowed ---
# Evidence from tensors alone, and from a part of their steps: what a smdebug trial gives.


class Windowed:
    """A TensorSource that shows some steps of another.

    Args:
        limits: first and last step that are shown, by mode; a mode that is missing has none.
    """

    def __init__(self, source: TensorSource, *, limits: Mapping[Mode, tuple[int, int]]) -> None:
        self._source, self._limits = source, limits

    def names(self, kind: Kind) -> Sequence[str]:
        """See `TensorSource`."""
        return self._source.names(kind)

    def statistics(self, name: str, *, kind: Kind, mode: Mode = "train") -> Statistics:
        """See `TensorSource`."""
        whole = self._source.statistics(name, kind=kind, mode=mode)
        first, last = self._limits.get(mode, (0, -1))
        shown = (whole.steps >= first) & (whole.steps <= last)
        return Statistics(
            steps=whole.steps[shown],
            columns={column: values[shown] for column, values in whole.columns.items()},
            units={step: rows for step, rows in whole.units.items() if first <= step <= last},
        )

    def value(
        self, name: str, *, kind: Kind, step: int, mode: Mode = "train"
    ) -> NDArray[np.generic] | None:
        """See `TensorSource`.

        Args:
            step: of the mode; None comes back for one that is not shown.
        """
        first, last = self._limits.get(mode, (0, -1))
        if not first <= step <= last:
            return None
        return self._source.value(name, kind=kind, step=step, mode=mode)


def evidence_of_tensors(tensors: TensorSource) -> Evidence:
    """What tensors say by themselves: losses as steps, classes by number, nothing of the rest."""
    return Evidence(
        facts=RunMetadata(
            architecture="",
            classes=tuple(f"class {number}" for number in range(_classes(tensors))),
            hyperparameters={},
            steps_per_epoch=0,
            class_counts={},
            trainable={},
            expected_trainable={},
        ),
        tensors=tensors,
        steps=_steps(tensors),
    )


def _classes(tensors: TensorSource) -> int:
    """Columns of the logits; 0 where none were recorded."""
    for name in tensors.names("logits"):
        for mode in ("train", "eval"):
            for step in tensors.statistics(name, kind="logits", mode=mode).steps[:1]:
                value = tensors.value(name, kind="logits", step=int(step), mode=mode)
                if value is not None and value.ndim > 1:
                    return int(value.shape[1])
    return 0


def _steps(tensors: TensorSource) -> StepLog:
    """A step for each recorded loss."""
    losses: dict[int, float] = {}
    for name in tensors.names("loss")[:1]:
        for step in tensors.statistics(name, kind="loss").steps.tolist():
            value = tensors.value(name, kind="loss", step=step)
            losses[step] = float("nan") if value is None else float(np.asarray(value, float).mean())
    unknown = np.full(len(losses), np.nan)
    ones = np.ones(len(losses), dtype=np.int64)
    return StepLog(
        step=np.array(list(losses), dtype=np.int64),
        epoch=ones,
        started=unknown,
        loss=np.array(list(losses.values()), dtype=np.float64),
        learning_rate=unknown,
        gradient_norm=unknown,
        images=32 * ones,
        correct=0 * ones,
        seconds={},
    )


# --- smdebug rules ---
# Our rules as smdebug's, and smdebug's as ours. The only file here that imports smdebug.
#
# Call `smdebug_rule("vanishing_gradient")(create_trial(path), threshold=1e-7)`, and give what it
# returns to `invoke_rule(rule, raise_eval_cond=True)`.
#
# smdebug prints a line when it is imported, so it is imported when it is needed.


class Step(Protocol):
    """smdebug's ModeKeys."""

    name: str


class Trial(Protocol):
    """What is needed of a trial of smdebug's."""

    path: str

    def steps(self) -> list[int]: ...
    def mode(self, global_step: int) -> Step: ...
    def mode_step(self, global_step: int) -> int: ...


_NOT_PARAMETERS = ("self", "base_trial", "other_trials", "action_str")
_MODES: dict[str, Mode] = {"TRAIN": "train", "EVAL": "eval", "GLOBAL": "train"}


def smdebug_rule(name: str, *, read: Callable[[Path], TensorSource] | None = None) -> type[Any]:
    """One of our rules as a class that derives from smdebug's Rule.

    It takes a trial and the rule's parameters, which have AWS' defaults. A
    step meets the condition if the tensors from the first step that it was invoked for, up to
    this one, have a hit that they had not before.

    Args:
        name: such as 'vanishing_gradient'.
        read: makes a TensorSource of a trial's folder; None: read_smdebug_tensors.

    Raises:
        UserError: there is no such rule.
        ImportError: smdebug is not installed.
    """
    if name not in RULES:
        raise UserError(f"there is no rule {name!r}; docs/rules.md lists all {len(RULES)}")
    with quiet_smdebug():
        from smdebug.rules.rule import Rule as SmdebugRule

    rule = RULES[name]

    def initialise(
        self: SmdebugRule, base_trial: Trial, action_str: str = "", **parameters: Value
    ) -> None:
        SmdebugRule.__init__(self, base_trial, action_str=action_str)
        judge = _StepJudge(rule, trial=base_trial, parameters=parameters, read=read)
        self.invoke_at_step = judge.has_new_hits

    methods = {
        "__init__": initialise,
        "invoke_at_step": lambda self, step: False,  # abstract until the instance has its own
        "__doc__": rule.meaning,
    }
    return type("".join(word.capitalize() for word in name.split("_")), (SmdebugRule,), methods)


def foreign_rule(rule_class: type[Any]) -> Callable[..., list[Hit]]:
    """A class that derives from smdebug's Rule as a function of evidence.

    Its parameters are those of its constructor that have defaults; a hit for each step at
    which it fires.
    """
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(rule_class.__init__).parameters.items()
        if name not in _NOT_PARAMETERS and parameter.default is not inspect.Parameter.empty
    ]

    def evaluate(evidence: Evidence, **values: Value) -> list[Hit]:
        if not evidence.trial:
            raise NotApplicableError(
                "a rule of smdebug needs tensors in its format (recording.backend: smdebug)"
            )
        return _fired(rule_class, trial=_open(evidence.trial), values=values)

    evidence_parameter = inspect.Parameter("evidence", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    evaluate.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [evidence_parameter, *parameters]
    )
    evaluate.__doc__ = rule_class.__doc__ or f"{rule_class.__name__} was met"
    return evaluate


class _StepJudge:
    """Remembers what a rule found up to the step before."""

    def __init__(
        self,
        rule: Rule,
        *,
        trial: Trial,
        parameters: dict[str, Value],
        read: Callable[[Path], TensorSource] | None,
    ) -> None:
        unknown = sorted(set(parameters) - set(rule.parameters))
        if unknown:
            raise UserError(
                f"{rule.name} has no parameters {unknown}; it has {sorted(rule.parameters)}"
            )
        self._rule, self._trial = rule, trial
        self._parameters = {**AWS_DEFAULTS.get(rule.name, {}), **parameters}
        self._read = read or _read_trial
        self._limits: dict[Mode, tuple[int, int]] = {}
        self._tensors: tuple[int, TensorSource] | None = None
        self._found: set[tuple[str, int | None]] = set()

    def has_new_hits(self, step: int) -> bool:
        """Whether a step, counted over all modes, brings hits that were not there before."""
        mode = _MODES[self._trial.mode(step).name]
        own = int(self._trial.mode_step(step))
        first, _ = self._limits.get(mode, (own, own))
        self._limits[mode] = (first, own)
        tensors = Windowed(self._newest(), limits=self._limits)
        try:
            hits = self._rule.evaluate(evidence_of_tensors(tensors), **self._parameters)
        except NotApplicableError:
            return False
        found = {(hit.where, hit.step) for hit in hits}
        is_new = bool(found - self._found)
        self._found |= found
        return is_new

    def _newest(self) -> TensorSource:
        """The trial's tensors, read again only where steps were added."""
        path = Path(self._trial.path)
        files = sum(1 for _ in path.glob("index/*/*.json"))
        if self._tensors is None or self._tensors[0] != files:
            self._tensors = (files, self._read(path))
        return self._tensors[1]


@contextmanager
def quiet_smdebug() -> Iterator[None]:
    """For its first import: without the line that it logs, and the warnings of what it imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from smdebug.core.logger import get_logger

        get_logger().setLevel(logging.ERROR)
        yield


def _read_trial(path: Path) -> TensorSource:
    from darkroom.debugging.smdebug_source import read_smdebug_tensors

    return read_smdebug_tensors(path)


def _open(path: str) -> Trial:
    with quiet_smdebug():
        from smdebug.trials import create_trial

    trial: Trial = create_trial(path)
    return trial


def _fired(rule_class: type[Any], *, trial: Trial, values: dict[str, Value]) -> list[Hit]:
    from smdebug.exceptions import (
        NoMoreData,
        RuleEvaluationConditionMet,
        StepUnavailable,
        TensorUnavailable,
        TensorUnavailableForStep,
    )

    rule = rule_class(trial, **values)
    hits = []
    for step in trial.steps():
        try:
            rule.invoke(step)
        except RuleEvaluationConditionMet:
            hits.append(Hit("", int(trial.mode_step(step)), {"step_of_all_modes": float(step)}))
        except (NoMoreData, StepUnavailable, TensorUnavailable, TensorUnavailableForStep):
            continue
    return hits


# --- custom ---

_MAX_TITLE = 80


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
    title = first.strip().rstrip(".")[:_MAX_TITLE] or name.replace("_", " ").capitalize()
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
