"""How fast `serve` is, how soon it is ready, and what it takes; beside peers, in one command.

    python -m benchmarks.serving_peers --setup
    python -m benchmarks.serving --data PHOTOGRAPHS

PHOTOGRAPHS is a folder or tar with train/<class>/*.jpg. Parts, by --only:

    throughput  requests/s and latency at 1, 8 and 32 clients, resnet18 and
                mobilenet_v3_small at 224 px, against a plain loop of the same engine over the
                same files, multi-model-server and LitServe; rounds interleaved, medians
    start       from the start of the process to the first 200 of /ping
    memory      of all its processes with mobilenet_v3_small, when ready and after 1,000
                requests; and what the hosting environment takes on disk
    models      10 models behind a limit that fits 4: 10,000 requests, every answer checked

The load comes from a process of its own (load.py). `start`, `memory` and `models` run in an
environment that holds what the hosting image holds. JSON to standard output, tables to
standard error.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hosting_environment import (
    HOSTING_LOCK,
    NotInstalledError,
    install,
    size_mb,
    variables,
)
from benchmarks.photographs import dataset_of, select
from benchmarks.serving_models import (
    expected_answers,
    write_bundle,
    write_copies,
    write_plan,
    write_travelling_plan,
)
from benchmarks.serving_peers import FOLDER as PEERS_FOLDER
from benchmarks.serving_peers import PEERS, launch, missing
from benchmarks.serving_processes import Launch
from benchmarks.serving_resources import many_models, memory, start_seconds
from benchmarks.serving_tables import table
from benchmarks.serving_throughput import OURS, Contest, measure
from benchmarks.upload import machine
from darkroom.serving.memory import memory_of

PARTS = ("throughput", "start", "memory", "models")
ARCHITECTURES = ("resnet18", "mobilenet_v3_small")
SMALL = "mobilenet_v3_small"
PHOTOGRAPHS = 200
MODELS, MODELS_THAT_FIT = 10, 4

Measured = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """What all parts use."""

    scratch: Path
    images: tuple[Path, ...]
    bundles: dict[str, Path]
    plans: dict[str, Path]
    options: argparse.Namespace

    def ours(self, *arguments: str, programs: Path | None = None) -> Launch:
        """`serve`, from this environment or another."""
        serve = (programs or Path(sys.executable).parent) / "serve"
        place = ("--port", "{port}", "--host", "127.0.0.1")
        given = (*arguments, *place, *self.options.serve)
        environment = variables(programs) if programs else {}
        return Launch(OURS, command=(str(serve), "serve", *given), environment=environment)


def main() -> None:
    """Measure what was asked for."""
    options = _parser().parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    stage = prepare(options)
    result: Measured = {"machine": machine()}
    if "throughput" in options.only:
        result["throughput"] = throughput(stage)
    if set(options.only) & {"start", "memory", "models"}:
        result |= resources(stage)
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=1))


def prepare(options: argparse.Namespace) -> Stage:
    """Photographs, bundles and plans; what was made before is used again."""
    scratch = options.scratch.absolute()
    if not (scratch / "images").exists():
        select(options.data, images=PHOTOGRAPHS, scratch=scratch)
    dataset = dataset_of(scratch / "images")
    images = tuple(dataset.file(record) for record in dataset.split("train"))[:PHOTOGRAPHS]
    say(f"{len(images)} photographs; exporting networks, unless that was done before")
    bundles, plans = {}, {}
    for name in {*options.architectures, SMALL}:
        bundles[name] = write_bundle(name, dataset=dataset, folder=scratch / "bundles" / name)
        expected = expected_answers(bundles[name], images=images)
        plans[name] = write_plan(images, expected=expected, file=scratch / f"{name}.json")
    return Stage(scratch=scratch, images=images, bundles=bundles, plans=plans, options=options)


def throughput(stage: Stage) -> Measured:
    """Of each network: everybody's rates, and ours over theirs."""
    result: Measured = {}
    left_out = {p: why for p in stage.options.peers if (why := missing(p, folder=PEERS_FOLDER))}
    for peer, why in left_out.items():
        say(f"without {peer}: {why}")
    for architecture in stage.options.architectures:
        say(f"{architecture}: requests/s (median latency) at 1, 8 and 32 clients")
        bundle = stage.bundles[architecture]
        peers = [
            launch(peer, bundle=bundle, folder=PEERS_FOLDER, scratch=stage.scratch / "run" / peer)
            for peer in stage.options.peers
            if peer not in left_out
        ]
        contest = Contest(
            bundle=bundle,
            plan=stage.plans[architecture],
            launches=[stage.ours(str(bundle)), *peers],
            seconds=stage.options.seconds,
            rounds=stage.options.rounds,
            logs=stage.scratch / "logs" / architecture,
        )
        result[architecture] = measure(contest, say=say)
    return result


def resources(stage: Stage) -> Measured:
    """Start, memory, size and many models, in the hosting image's environment."""
    say("the hosting image's environment is being installed")
    try:
        programs = install(HOSTING_LOCK, environment=stage.scratch / "hosting")
    except NotInstalledError as error:
        sys.exit(f"the hosting environment cannot be installed: {error}")
    logs = stage.scratch / "logs"
    small = stage.ours(str(stage.bundles[SMALL]), programs=programs)
    result: Measured = {}
    if "start" in stage.options.only:
        say(f"start, {stage.options.starts} times")
        result["start"] = start_seconds(small, times=stage.options.starts, log=logs / "start.log")
    if "memory" in stage.options.only:
        say("memory")
        result["memory"] = memory(small, plan=stage.plans[SMALL], log=logs / "memory.log")
        result["installed_mb"] = size_mb(programs.parent)
    if "models" in stage.options.only:
        say(f"{MODELS} models, {stage.options.requests:,} requests")
        result["models"] = models(stage, programs=programs)
    return result


def models(stage: Stage, *, programs: Path) -> Measured:
    """Ten bundles behind a limit that fits four of them."""
    bundle, folder = stage.bundles[SMALL], stage.scratch / "models"
    copies = write_copies(bundle, number=MODELS, folder=folder)
    plan = write_travelling_plan(
        copies,
        images=stage.images,
        expected=expected_answers(bundle, images=stage.images),
        requests=stage.options.requests,
        file=stage.scratch / "travelling.json",
    )
    limit = int(memory_of(bundle) * (MODELS_THAT_FIT + 0.5) / 1e6)
    several = stage.ours(
        "--models", str(folder), "--memory-limit-mb", str(limit), programs=programs
    )
    log = stage.scratch / "logs" / "models.log"
    found = many_models(several, plan=plan, scratch=stage.scratch, log=log)
    return {"models": MODELS, "fit": MODELS_THAT_FIT, "limit_mb": limit, **found}


def say(text: str) -> None:
    """Progress, to standard error."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder or tar of photographs")
    parser.add_argument("--only", type=_list_of(PARTS), default=PARTS, help=", ".join(PARTS))
    parser.add_argument("--peers", type=_list_of(PEERS), default=("mms", "litserve"))
    parser.add_argument("--no-peers", dest="peers", action="store_const", const=())
    parser.add_argument("--architectures", type=lambda text: tuple(text.split(",")))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--requests", type=int, default=10_000, help="to ten models")
    parser.add_argument("--serve", nargs="+", default=(), help="more arguments of `serve`")
    parser.add_argument("--scratch", type=Path, default=Path(".darkroom/benchmarks/serving"))
    parser.set_defaults(architectures=ARCHITECTURES)
    return parser


def _list_of(allowed: Sequence[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"{unknown}; allowed are {', '.join(allowed)}")
        return names

    return parse


if __name__ == "__main__":
    main()
