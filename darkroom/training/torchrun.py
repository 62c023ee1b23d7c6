"""Several training processes on this machine, started and watched by torchrun."""

import os
import socket
from pathlib import Path

from darkroom.errors import DarkroomError, UserError
from darkroom.serving.parent_watch import parent_environment

_PROGRAM = "darkroom.training.program"


def in_training_process() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first_process() -> bool:
    """Whether this process is the one that writes files."""
    return os.environ.get("RANK", "0") == "0"


def run_processes(count: int, *, failure: Path) -> None:
    """Run the `train` program `count` times side by side, as one training.

    Args:
        failure: where a process that fails writes why.

    Raises:
        UserError: a process found a mistake of the user's.
        DarkroomError: a process failed otherwise.
        SystemExit: the program was asked to stop.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.update(parent_environment())
    # torchrun would give each process one thread, and warn.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    try:
        run(parse_args(_arguments(count)))  # type: ignore[no-untyped-call]
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from error
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        raise _failure(rank, code=first.exitcode, reason=failure) from error


def _arguments(count: int) -> list[str]:
    return [
        f"--nproc-per-node={count}",
        "--master-addr=127.0.0.1",
        f"--master-port={_free_port()}",
        "--module",
        _PROGRAM,
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _failure(rank: int, *, code: int, reason: Path) -> DarkroomError:
    if reason.is_file():
        text = reason.read_text(encoding="utf-8")
    elif code < 0:
        text = f"training process {rank} was ended by signal {-code}; is the memory used up?"
    else:
        text = f"training process {rank} ended with exit code {code}"
    return UserError(text) if code == UserError.exit_code else DarkroomError(text)
