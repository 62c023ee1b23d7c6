"""The errors a person is meant to read.

    DarkroomError        something failed                       exit code 1
    └── UserError        the input has to change before a rerun  exit code 2

A message says what is wrong, shows the value with `!r`, says what is allowed and
what to do next. Where several problems can be found, all are reported at once.
"""

import sys
from collections.abc import Sequence


class DarkroomError(Exception):
    """A failure with a message that needs no traceback."""

    exit_code = 1


class UserError(DarkroomError):
    """The user's mistake: bad configuration, bad data, a missing file.

    Args:
        problems: one message, or all the problems that were found.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


def not_installed(error: ModuleNotFoundError) -> str:
    """What is told where a package is missing: most often, it is another Python than .venv's."""
    return (
        f"{error.name!r} is not installed for {sys.executable!r}. Darkroom runs in its own "
        "environment: `make setup` creates or mends it, `source .venv/bin/activate` enters it "
        "(or write .venv/bin/python instead of python)"
    )
