"""Writes the table of docs/rules.md from the rules, their docstrings and their signatures.

python docs/rules_reference.py
"""

import inspect
import json
from pathlib import Path

from darkroom.debugging.rules.catalogue import RULES
from darkroom.debugging.rules.custom import AWS_DEFAULTS
from darkroom.debugging.rules.rule import Rule

TARGET = Path(__file__).resolve().parent / "rules.md"
_START, _END = "<!-- table of rules: make docs -->", "<!-- end of the table -->"
_HEAD = "| rule | what it means | when it fires | parameters | severity |\n|---|---|---|---|---|"


def page(text: str) -> str:
    """The page with its table as the rules are now."""
    before, _, rest = text.partition(_START)
    _, _, after = rest.partition(_END)
    rows = [_row(rule) for rule in RULES.values()]
    return before + "\n".join([_START, "", _HEAD, *rows, "", _END]) + after


def _row(rule: Rule) -> str:
    cells = (
        f"`{rule.name}`",
        f"{rule.title}. {rule.meaning}",
        _condition(rule),
        _parameters(rule),
        rule.severity if rule.live else f"{rule.severity}, at the end",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _condition(rule: Rule) -> str:
    """The first paragraph of the function's docstring."""
    first = (inspect.getdoc(rule.evaluate) or "").partition("\n\n")[0]
    return " ".join(first.split())


def _parameters(rule: Rule) -> str:
    aws = AWS_DEFAULTS.get(rule.name, {})
    texts = []
    for name, default in rule.parameters.items():
        theirs = f" (AWS: {json.dumps(aws[name])})" if name in aws else ""
        texts.append(f"`{name}` {json.dumps(default)}{theirs}")
    return ", ".join(texts) or "–"


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
