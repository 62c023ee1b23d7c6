"""Several training processes, on one machine or several, started and watched by torchrun."""

import os
import socket
from pathlib import Path

from darkroom.errors import DarkroomError, UserError
from darkroom.serving.parent_watch import parent_environment
from darkroom.training.hosts import Hosts

_PROGRAM = "darkroom.training.program"
_LOOPBACK = "127.0.0.1"


def in_training_process() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first_process() -> bool:
    """Whether this process is the one that writes files."""
    return os.environ.get("RANK", "0") == "0"


def run_processes(count: int, *, hosts: Hosts, failure: Path) -> None:
    """Run the `train` program `count` times on each host, side by side, as one training.

    Args:
        failure: where a process of this host that fails writes why.

    Raises:
        UserError: a process found a mistake of the user's.
        DarkroomError: a process failed otherwise, or another host cannot be found.
        SystemExit: the program was asked to stop.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.update(parent_environment() | hosts.environment())
    # torchrun would give each process one thread, and warn.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    hosts.wait_for_names()
    try:
        run(parse_args(_arguments(count, hosts=hosts)))  # type: ignore[no-untyped-call]
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from error
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        raise _failure(rank, code=first.exitcode, reason=failure) from error
    except DistError as error:
        raise DarkroomError(f"the hosts {hosts.names} did not find each other: {error}") from error


def _arguments(count: int, *, hosts: Hosts) -> list[str]:
    several = [f"--nnodes={len(hosts.names)}", f"--node-rank={hosts.position}"]
    return [
        *(several if hosts.several else []),
        f"--nproc-per-node={count}",
        f"--master-addr={hosts.names[0] if hosts.several else _LOOPBACK}",
        f"--master-port={hosts.port if hosts.several else _free_port()}",
        "--module",
        _PROGRAM,
    ]


def _free_port() -> int:
    with socket.create_server((_LOOPBACK, 0)) as listening:
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
