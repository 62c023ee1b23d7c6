"""How long a recording with whole tensors takes to judge, and how much memory.

    python -m benchmarks.judging [--gigabytes 2] [--batch 8] [--pixels 64] [--rounds 1]

Writes, into a temporary folder, what smdebug's own hook would leave of a training of
resnet18: a loss, logits and labels at every tenth step, and at as many steps as fit the
weights, biases, gradients, and what goes into and comes out of every ReLU. No statistics are
stored, so that all of them are computed from the tensors. Then judges it, each time in a
process of its own: as a recording (`diagnose`), and as a bare trial, of which nothing but the
tensors is known; each first with the files out of the page cache, then with them in it.

`seconds` are those of the process, its start and imports included; `peak_mb` is the most
that was resident in it (VmHWM), of which `imports_mb` were there before the first file was
opened; `read_mb` came through read calls, `disk_mb` from the disk. JSON goes to standard
output, a line for each to standard error.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import cpu_name

MOST_SECONDS, MOST_MB = 60, 1000
AS = ("recording", "trial")

Measured = dict[str, Any]


def main() -> None:
    """Write the recording and judge it, or, as a child process, only judge it."""
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(_judge(arguments.folder, kind=arguments.child)))
        return
    with tempfile.TemporaryDirectory(prefix="darkroom-judging-", dir=arguments.folder) as scratch:
        from benchmarks.whole_tensors import write_recording

        folder = Path(scratch)
        print("writing the recording", file=sys.stderr)
        written = write_recording(
            folder,
            most=int(arguments.gigabytes * 1e9),
            batch=arguments.batch,
            pixels=arguments.pixels,
        )
        runs = [
            _in_process(folder, kind=kind, is_cached=is_cached)
            for kind, is_cached in _order(arguments.rounds)
        ]
    print(json.dumps(_machine() | written | {"runs": runs}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of tensors (default: 2)")
    parser.add_argument("--batch", type=int, default=8, help="images a step (default: 8)")
    parser.add_argument("--pixels", type=int, default=64, help="side of an image (default: 64)")
    parser.add_argument("--rounds", type=int, default=1, help="default: 1")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's")
    parser.add_argument("--child", choices=AS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _order(rounds: int) -> list[tuple[str, bool]]:
    return [(kind, is_cached) for _ in range(rounds) for kind in AS for is_cached in (False, True)]


def _in_process(folder: Path, *, kind: str, is_cached: bool) -> Measured:
    """Judge in a process of its own, which says what it took."""
    if not is_cached:
        _drop_from_cache(folder)
    load = os.getloadavg()[0]
    command = [sys.executable, "-m", "benchmarks.judging", "--child", kind]
    started = time.perf_counter()
    child = subprocess.run(
        [*command, "--folder", str(folder)], check=True, stdout=subprocess.PIPE, text=True
    )
    told: Measured = {"as": kind, "is_cached": is_cached, "seconds": time.perf_counter() - started}
    told |= json.loads(child.stdout.splitlines()[-1]) | {"load_before": load}
    told["is_met"] = told["seconds"] < MOST_SECONDS and told["peak_mb"] < MOST_MB
    print(
        f"{kind}, {'in' if is_cached else 'out of'} the page cache: {told['seconds']:.1f} s, "
        f"peak {told['peak_mb']:.0f} MB (imports {told['imports_mb']:.0f} MB), "
        f"{told['read_mb']:.0f} MB read; {'met' if told['is_met'] else 'missed'}",
        file=sys.stderr,
    )
    return told


def _drop_from_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def _judge(folder: Path, *, kind: str) -> Measured:
    """What the child does; modules are imported first, so that their memory is known."""
    judge = _judge_recording if kind == "recording" else _judge_trial
    judge_folder = judge()
    imports_mb, before = _peak_mb(), time.perf_counter()
    rules, findings = judge_folder(folder)
    return {
        "judging_seconds": time.perf_counter() - before,
        "cpu_seconds": time.process_time(),
        "imports_mb": imports_mb,
        "peak_mb": _peak_mb(),
        "read_mb": _input_output("rchar") / 1e6,
        "disk_mb": _input_output("read_bytes") / 1e6,
        "rules": rules,
        "findings": findings,
    }


def _judge_recording() -> Any:
    from darkroom.config.debugging import DiagnosisConfig
    from darkroom.debugging.diagnosis import diagnose

    return lambda folder: _counted(diagnose(folder, config=DiagnosisConfig()).diagnosis)


def _judge_trial() -> Any:
    from darkroom.config.debugging import DiagnosisConfig
    from darkroom.debugging.rules.custom import evidence_of_tensors
    from darkroom.debugging.rules.runner import judge
    from darkroom.debugging.smdebug_source import read_smdebug_tensors

    def judge_folder(folder: Path) -> tuple[Measured, list[str]]:
        evidence = evidence_of_tensors(read_smdebug_tensors(folder / "tensors"))
        return _counted(judge(evidence, config=DiagnosisConfig()))

    return judge_folder


def _counted(diagnosis: Any) -> tuple[Measured, list[str]]:
    """Rules by outcome, and what they found."""
    outcomes = [rule.outcome for rule in diagnosis.rules]
    counts = {outcome: outcomes.count(outcome) for outcome in sorted({*outcomes})}
    return counts, [finding.rule for finding in diagnosis.findings]


def _peak_mb() -> float:
    """VmHWM: unlike getrusage's, not inherited from the process that started this one."""
    return _number(Path("/proc/self/status"), "VmHWM") * 1024 / 1e6


def _input_output(name: str) -> int:
    return _number(Path("/proc/self/io"), name)


def _number(file: Path, name: str) -> int:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _machine() -> Measured:
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "numpy": np.__version__,
        "bound": {"seconds": MOST_SECONDS, "peak_mb": MOST_MB},
    }


if __name__ == "__main__":
    main()
