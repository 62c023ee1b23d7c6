"""Whether what a configuration says of rules can be done: all problems at once, before a run."""

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import get_args

from darkroom.config.debugging import CustomRuleConfig, DiagnosisConfig, RuleConfig
from darkroom.errors import UserError
from darkroom.rules.catalogue import RULES
from darkroom.rules.custom import load_custom_rule
from darkroom.rules.rule import Rule, Value


@dataclass(frozen=True)
class ConfiguredRule:
    """A rule, and what differs from its defaults."""

    rule: Rule
    config: RuleConfig

    @property
    def parameters(self) -> dict[str, Value]:
        """All of them, with their values."""
        return {**self.rule.parameters, **self.config.parameters}


def check_rules(config: DiagnosisConfig) -> None:
    """See that every rule and parameter that is named exists, and that values fit.

    Raises:
        UserError: all problems.
    """
    configured_rules(config)


def configured_rules(config: DiagnosisConfig) -> list[ConfiguredRule]:
    """Every rule with its configuration, the user's own ones last.

    Raises:
        UserError: all problems.
    """
    problems = [_unknown_rule(name) for name in config.rules if name not in RULES]
    rules = [
        ConfiguredRule(rule, config.rules.get(name, RuleConfig())) for name, rule in RULES.items()
    ]
    for custom in config.custom:
        try:
            rules.append(ConfiguredRule(load_custom_rule(custom.function), custom))
        except UserError as error:
            problems += error.problems
    problems += _repeated(rules)
    problems += [problem for one in rules for problem in _parameter_problems(one)]
    problems += [problem for one in rules for problem in _action_problems(one, live=config.live)]
    if problems:
        raise UserError(problems)
    return rules


def _unknown_rule(name: str) -> str:
    close = get_close_matches(name, RULES, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"diagnosis.rules: unknown rule {name!r}; {meant}docs/rules.md lists all {len(RULES)}"


def _repeated(rules: Iterable[ConfiguredRule]) -> list[str]:
    seen: set[str] = set()
    problems = []
    for one in rules:
        if one.rule.name in seen:
            problems.append(
                f"diagnosis.custom: there is a rule {one.rule.name!r} already; rename the function"
            )
        seen.add(one.rule.name)
    return problems


def _parameter_problems(one: ConfiguredRule) -> list[str]:
    known = one.rule.parameters
    types = _types(one.rule)
    where = f"{_where(one)}.parameters"
    problems = []
    for name, value in one.config.parameters.items():
        if name not in known:
            problems.append(
                f"{where}: unknown parameter {name!r}; {one.rule.name} has "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        elif not _fits(value, allowed=types[name]):
            problems.append(
                f"{where}.{name} must be {_worded(types[name])}, not {value!r}; "
                f"its default is {known[name]!r}"
            )
        elif problem := _regex_problem(name, value):
            problems.append(f"{where}.{name}: {value!r} is no regular expression: {problem}")
    return problems


def _action_problems(one: ConfiguredRule, *, live: bool) -> list[str]:
    """To stop a training there has to be one that runs."""
    if one.config.action != "stop" or not one.config.enabled or (live and one.rule.live):
        return []
    why = (
        f"{one.rule.name} is judged when the training has ended"
        if live
        else "diagnosis.live is false: nothing is judged before the training has ended"
    )
    return [
        f"{_where(one)}.action: 'stop' ends nothing: {why}; 'fail' fails the run then, and "
        "nothing is registered"
    ]


def _where(one: ConfiguredRule) -> str:
    if isinstance(one.config, CustomRuleConfig):
        return f"diagnosis.custom {one.config.function!r}"
    return f"diagnosis.rules.{one.rule.name}"


def _types(rule: Rule) -> Mapping[str, tuple[type, ...]]:
    """By parameter: the types that it may have; those of its default where it has none."""
    return {
        name: _allowed(parameter.annotation, default=parameter.default)
        for name, parameter in inspect.signature(rule.evaluate).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _allowed(annotation: object, *, default: Value) -> tuple[type, ...]:
    if isinstance(annotation, type) and annotation in (int, float, str, bool):
        return (annotation,)
    if options := get_args(annotation):
        return tuple(options)
    return () if default is None else (type(default),)


def _fits(value: Value, *, allowed: tuple[type, ...]) -> bool:
    if not allowed or type(value) in allowed:
        return True
    return type(value) is int and float in allowed


def _worded(allowed: tuple[type, ...]) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return " or ".join(names.get(one, "null") for one in allowed)


def _regex_problem(name: str, value: Value) -> str:
    if not (name.endswith("regex") and isinstance(value, str)):
        return ""
    try:
        re.compile(value)
    except re.error as error:
        return str(error)
    return ""
