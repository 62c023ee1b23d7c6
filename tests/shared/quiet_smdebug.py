"""smdebug itself, against which what we read and write of its format is held."""

from typing import Any

from darkroom.debugging.rules.custom import quiet_smdebug


def import_smdebug() -> Any:
    """smdebug.pytorch, without the warnings of its first import."""
    with quiet_smdebug():
        import smdebug.pytorch as smd
    return smd
