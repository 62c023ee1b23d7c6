"""Measures engines side by side: each in a process of its own, in turns, one at a time."""

import json
import platform
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from darkroom.base.errors import UserError
from darkroom.base.files import atomic_path, link_or_copy, write_text
from darkroom.base.progress import SILENT, Progress
from darkroom.compilation.results import (
    BATCHES,
    CompilationReport,
    EngineResult,
    Measurement,
    Objective,
    TvmInsight,
)
from darkroom.compilation.tvm import TvmError, insight
from darkroom.config.sections import CompilationConfig
from darkroom.models.bundle import METADATA_FILE, ONNX_FILE, WEIGHTS_FILE, Bundle
from darkroom.models.engine import DEFAULT_ENGINE, EngineName, Floats
from darkroom.models.engines import advice, is_installed
from darkroom.models.prediction import available_cores

# --- choice of an engine ---
# The configured rule: which engine is best, and whether by enough to leave the default.

_COST: dict[Objective, Callable[[Measurement], float]] = {
    "latency": lambda m: m.latency_ms,
    "throughput": lambda m: 1 / max(m.images_per_second.values()),
    "memory": lambda m: m.memory_mb,
    "size": lambda m: m.size_mb,
}
"""What is to be small."""


def judged(result: EngineResult, *, config: CompilationConfig) -> EngineResult:
    """With the reason why it may not be chosen, if it disagrees with torch."""
    measured = result.measurement
    if measured is None or result.problem:
        return result
    problems = []
    if not measured.probability_difference <= config.maximum_probability_difference:
        problems.append(
            f"probabilities differ from torch's by up to {measured.probability_difference:.2g}; "
            f"allowed is {config.maximum_probability_difference:g}"
        )
    if measured.top1_agreement < config.minimum_top1_agreement:
        problems.append(
            f"{measured.top1_agreement:.1%} of the images get torch's class; "
            f"at least {config.minimum_top1_agreement:.1%} have to"
        )
    return result.model_copy(update={"problem": "; ".join(problems)})


def choose(results: Sequence[EngineResult], *, config: CompilationConfig) -> tuple[EngineName, str]:
    """The best eligible engine, and why it is that.

    The default engine stays unless another beats it by the configured margin.
    """
    cost = _COST[config.objective]
    costs = {r.engine: cost(r.measurement) for r in results if r.is_eligible and r.measurement}
    if not costs:
        return DEFAULT_ENGINE, "no engine could be measured and agrees with torch"
    best = min(costs, key=lambda engine: costs[engine])
    if best == DEFAULT_ENGINE or DEFAULT_ENGINE not in costs:
        return best, f"best {config.objective} of {len(costs)}"
    gain = 1 - costs[best] / costs[DEFAULT_ENGINE] if costs[DEFAULT_ENGINE] else 0.0
    if gain <= config.margin:
        return (
            DEFAULT_ENGINE,
            f"{best} is better by {gain:.0%} ({config.objective}), which is within the margin "
            f"of {config.margin:.0%}",
        )
    return best, f"better than {DEFAULT_ENGINE} by {gain:.0%} ({config.objective})"


# --- measurement ---

_REFERENCE: EngineName = "torch"
_LINES_SHOWN = 3


class _ChildError(Exception):
    """A child ended; the message is what it said last."""


@dataclass
class _Child:
    """A running engine."""

    process: "subprocess.Popen[str]"
    log: Path
    loaded: dict[str, Any] = field(default_factory=dict)
    times: dict[int, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    probabilities: Floats | None = None

    def ask(self, order: Mapping[str, object]) -> dict[str, Any]:
        """Give an order, and wait for the answer."""
        assert self.process.stdin  # noqa: S101 - as it was started
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise _ChildError(self.last_words()) from error
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout  # noqa: S101 - as it was started
        line = self.process.stdout.readline()
        if not line:
            raise _ChildError(self.last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def last_words(self) -> str:
        """Why it ended."""
        code = self.process.wait()
        lines = self.log.read_text(errors="replace").strip().splitlines()[-_LINES_SHOWN:]
        return f"its process ended with {code}: {' '.join(lines) or 'it said nothing'}"


def measure(
    bundle: Bundle, *, images: Floats, config: CompilationConfig, progress: Progress = SILENT
) -> CompilationReport:
    """Measure the configured engines on this machine, and choose.

    Args:
        images: (N, 3, S, S), on which they have to agree with torch.

    Returns:
        A row for each engine; those that are missing, fail or disagree say why.
    """
    names = list(dict.fromkeys((*config.engines, _REFERENCE)))
    with TemporaryDirectory(prefix="darkroom-compile-") as scratch:
        np.save(Path(scratch) / "images.npy", images)
        children, problems = _measured(
            names, bundle=bundle, scratch=Path(scratch), config=config, progress=progress
        )
    reference = children.get(_REFERENCE)
    expected = None if reference is None else reference.probabilities
    results = [
        EngineResult(engine=name, problem=problems[name])
        if name in problems
        else judged(
            _result(name, child=children[name], expected=expected, bundle=bundle), config=config
        )
        for name in names
        if name in config.engines or name == _REFERENCE
    ]
    candidates = [result for result in results if result.engine in config.engines]
    chosen, reason = choose(candidates, config=config)
    tvm, tvm_problem = _look_inside(bundle, images=images) if config.tvm else (None, "")
    return CompilationReport(
        architecture=bundle.metadata.architecture,
        version=bundle.metadata.version,
        image_size=bundle.metadata.preprocessing.image_size,
        machine=machine(),
        threads=config.threads,
        rounds=config.rounds,
        images=len(images),
        objective=config.objective,
        results=tuple(results),
        chosen=chosen,
        reason=reason,
        tvm=tvm,
        tvm_problem=tvm_problem,
    )


def _look_inside(bundle: Bundle, *, images: Floats) -> tuple[TvmInsight | None, str]:
    try:
        return insight(bundle, images=images), ""
    except TvmError as error:
        return None, str(error)


def machine() -> str:
    """The processor and how many cores of it there are."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return f"{model}, {available_cores()} cores"


def _measured(
    names: Sequence[EngineName],
    *,
    bundle: Bundle,
    scratch: Path,
    config: CompilationConfig,
    progress: Progress,
) -> tuple[dict[EngineName, _Child], dict[EngineName, str]]:
    """The children with all that they measured; and why others have not."""
    problems = {name: f"not installed: {advice(name)}" for name in names if not is_installed(name)}
    children: dict[EngineName, _Child] = {}
    present = [name for name in names if name not in problems]
    orders: list[dict[str, Any]] = [{"probabilities": str(scratch / "images.npy")}]
    orders += [{"run": list(BATCHES)}] * config.rounds
    total = len(present) * (len(orders) + 1)
    with ExitStack() as running, progress.task("Measuring engines", total=total) as task:
        for name in present:
            child = running.enter_context(
                _running(name, bundle=bundle, scratch=scratch, threads=config.threads)
            )
            try:
                child.loaded = child.answer()
                children[name] = child
            except _ChildError as error:
                problems[name] = str(error)
            task.advance()
        for order in orders:  # rounds outside, engines inside: noise meets all of them alike
            for name in list(children):
                try:
                    _note(children[name], answer=children[name].ask(order))
                except _ChildError as error:
                    problems[name] = str(error)
                    del children[name]
                task.advance(detail=name)
    return children, problems


@contextmanager
def _running(name: EngineName, *, bundle: Bundle, scratch: Path, threads: int) -> Iterator[_Child]:
    log = scratch / f"{name}.log"
    command = [sys.executable, "-m", "darkroom.compilation.child", str(bundle.folder), name]
    with log.open("w") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield _Child(process, log=log)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


def _note(child: _Child, *, answer: Mapping[str, Any]) -> None:
    if "probabilities" in answer:
        child.probabilities = np.asarray(answer["probabilities"], dtype=np.float32)
    for batch, times in answer.get("times", {}).items():
        child.times[int(batch)].append(times)


def _result(
    name: EngineName, *, child: _Child, expected: Floats | None, bundle: Bundle
) -> EngineResult:
    got = child.probabilities
    if expected is None or got is None:
        return EngineResult(engine=name, problem="torch is missing, which it is compared with")
    medians = {n: np.median([np.median(turn) for turn in child.times[n]]) for n in BATCHES}
    file = WEIGHTS_FILE if name == "torch" else ONNX_FILE
    return EngineResult(
        engine=name,
        version=child.loaded["version"],
        measurement=Measurement(
            load_ms=child.loaded["load_ms"],
            latency_ms=float(medians[1]),
            latency_ms_p99=float(np.percentile(np.concatenate(child.times[1]), 99)),
            images_per_second={n: n * 1e3 / float(medians[n]) for n in BATCHES},
            memory_mb=child.loaded["memory_mb"],
            size_mb=(bundle.folder / file).stat().st_size / 1e6,
            top1_agreement=float((got.argmax(axis=1) == expected.argmax(axis=1)).mean()),
            probability_difference=float(np.abs(got - expected).max()),
        ),
    )


# --- compilation ---
# A bundle that says which engine runs it best.


def bundle_for(bundle: Bundle, *, engine: EngineName, folder: Path) -> Bundle:
    """The bundle as `folder`, compiled for an engine; weights and network are the same files.

    Raises:
        UserError: `folder` exists and is no bundle.
    """
    if folder.exists() and not (folder / METADATA_FILE).is_file():
        raise UserError(f"{str(folder)!r} exists and is no model bundle: name another folder")
    metadata = bundle.metadata.model_copy(update={"engine": engine})
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name in (ONNX_FILE, WEIGHTS_FILE):
            link_or_copy(bundle.folder / name, temporary / name)
        write_text(temporary / METADATA_FILE, metadata.model_dump_json(indent=1))
        shutil.rmtree(folder, ignore_errors=True)
    return Bundle(folder, metadata)
