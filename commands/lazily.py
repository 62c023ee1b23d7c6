"""Commands are imported when they are used, so that `--help` and mistakes answer at once."""

from collections.abc import Mapping
from importlib import import_module


def call(target: str, options: Mapping[str, object]) -> None:
    """Call a function, named as 'module:function', with the command line's options."""
    module, function = target.split(":")
    getattr(import_module(module), function)(**options)
