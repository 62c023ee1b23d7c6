"""Runs a program that knows nothing of us, and ends it with whoever started us.

    python -m rehearsal.attached COMMAND ARGUMENT …

The parent asks for it as darkroom.base.processes says; SIGTERM is passed on to all that
the command started.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import FrameType

from darkroom.base.processes import end_with_parent, parent_environment

_SECONDS_TO_END = 5


def main(command: list[str]) -> int:
    """Run the command to its end, or to ours. Returns its exit code."""
    signal.signal(signal.SIGTERM, _ended)
    end_with_parent()
    environment = {**os.environ, **parent_environment()}  # ours, where it is a program of ours
    process = subprocess.Popen(  # noqa: S603 - what our own services name
        command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    try:
        return process.wait()
    except (SystemExit, KeyboardInterrupt):
        _end(process)
        return 0


def _ended(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Workers may outlive the program that started them.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
