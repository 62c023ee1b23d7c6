"""Our rules as smdebug's, and smdebug's as ours. The only file here that imports smdebug.

    rule = smdebug_rule("vanishing_gradient")(create_trial(path), threshold=1e-7)
    invoke_rule(rule, raise_eval_cond=True)

smdebug prints a line when it is imported, so it is imported when it is needed.
"""

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from darkroom.errors import UserError
from darkroom.rules.aws_defaults import AWS_DEFAULTS
from darkroom.rules.catalogue import RULES
from darkroom.rules.evidence import Evidence, Mode, TensorSource
from darkroom.rules.findings import Hit
from darkroom.rules.rule import NotApplicableError, Rule, Value
from darkroom.rules.windowed import Windowed, evidence_of_tensors


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

    It takes a trial and the rule's parameters, which have AWS' defaults (aws_defaults.py). A
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
    from darkroom.capture.smdebug_source import read_smdebug_tensors

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
