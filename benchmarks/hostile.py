"""What hostile clients are answered, and what a well-behaved one notices of them.

    python -m benchmarks.hostile

Starts a server with a small model and sends it the cases of tests/shared/hostile. Exit code 1 where
a case was answered wrongly or the other client was.
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

_ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests" / "shared")]

from hostile.attacking import Bystander, Outcome, attack, bystander, held  # noqa: E402
from hostile.bodies import BodyCase, body_cases  # noqa: E402
from hostile.costly import costly_images  # noqa: E402
from hostile.http_cases import raw_cases, slow_cases  # noqa: E402
from hostile.model_paths import model_cases  # noqa: E402
from served import Client  # noqa: E402
from small_bundles import write_small_bundle  # noqa: E402

_SECONDS_TO_TIDY = 25
"""The server gives freed memory back every 20 s."""

_TARGET = {"X-Amzn-SageMaker-Target-Model": "first"}


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        first = write_small_bundle(models / "first")
        one = _against(str(first), "--allow-urls")
        several = _against("--models", str(models))
    return max(one, several)


def _against(*arguments: str) -> int:
    with serving(*arguments) as (process, client):
        is_several = arguments[0] == "--models"
        cases = model_cases() if is_several else (*body_cases(), *_costly(), *raw_cases())
        held_ones = () if is_several else slow_cases()
        before = _megabytes(process)
        with (
            bystander(client, headers=_TARGET if is_several else None) as other,
            held(client, held_ones) as slow,
        ):
            outcomes = [attack(client, case) for case in cases]
        outcomes += slow
        _print(outcomes, other=other)
        restarts = client.send("GET", "/ping", content_type=None).content
        after = _megabytes(process)
        time.sleep(_SECONDS_TO_TIDY)
        print(
            f"memory {before:.0f} MB before, {after:.0f} MB right after, "
            f"{_megabytes(process):.0f} MB {_SECONDS_TO_TIDY} s later; "
            f"restarts {restarts['restarts']}\n"
        )
    return int(bool(other.failures or [outcome for outcome in outcomes if outcome.fault]))


def _costly() -> list[BodyCase]:
    """What benchmarks/decoding_cost.py measures one by one."""
    return [
        BodyCase("costly image", kind, make(), is_refused=False)
        for kind, make in costly_images().items()
    ]


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[psutil.Process, Client]]:
    """The serving process of a server, and a client of it."""
    command = [sys.executable, "-m", "darkroom.serving.program", "serve", *arguments]
    with subprocess.Popen(
        [*command, "--port", "0", "--log", "none"], stdout=subprocess.PIPE, text=True, cwd=_ROOT
    ) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            port = int(line.strip().rstrip('"}').rsplit(":", 1)[1])
            (server,) = psutil.Process(child.pid).children()
            yield server, Client(port)
        finally:
            child.terminate()


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def _print(outcomes: Sequence[Outcome], *, other: Bystander) -> None:
    print(f"{'kind':20} {'cases':>5} {'slowest':>9}  answers (closed: without one)")
    for kind in dict.fromkeys(outcome.case.kind for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.case.kind == kind]
        slowest = max(outcome.seconds for outcome in own) * 1e3
        counted = Counter(str(outcome.status or "closed") for outcome in own)
        answers = ", ".join(f"{status}: {count}" for status, count in sorted(counted.items()))
        print(f"{kind:20} {len(own):5} {slowest:6.0f} ms  {answers}")
    for outcome in outcomes:
        if outcome.fault:
            print(f"WRONG: {outcome.case.kind}, {outcome.case.name}: {outcome.fault}")
    print(
        f"{len(outcomes)} cases; meanwhile another client: {other.answers} right answers, "
        f"{len(other.failures)} failures, slowest {other.slowest * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
