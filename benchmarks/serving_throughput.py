"""Requests a second and latency: `serve`, its peers, and the plain loop, in turn."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving_loop import loop_rate
from benchmarks.serving_processes import Launch, NotReadyError, running
from darkroom.models.prediction import available_cores

CLIENTS = (1, 8, 32)
OURS = "darkroom"
_WARM_UP_REQUESTS = 40
_WARM_UP_SECONDS = 0.5

Measured = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Contest:
    """One network, everybody who serves it, and for how long each is asked."""

    bundle: Path
    plan: Path
    launches: Sequence[Launch]
    seconds: float
    rounds: int
    logs: Path


def measure(contest: Contest, *, say: Say) -> Measured:
    """Rounds in which everybody has a turn; medians of them.

    Ratios are taken round by round, so that a machine that changes its pace shifts them less.
    """
    rounds = [_round(contest, say=say) for _ in range(contest.rounds)]
    names = [launch.name for launch in contest.launches]
    served = {name: _medians([each[name] for each in rounds]) for name in names}
    loops = {name: statistics.median(r["loop"][name] for r in rounds) for name in rounds[0]["loop"]}
    return {"loop": loops, "served": served, "ratios": _ratios(rounds, peers=names)}


def load(url: str, *, plan: Path, clients: int, **limits: float) -> Measured:
    """What the load generator, a process of its own, has to say."""
    command = [sys.executable, "-m", "benchmarks.load", url, "--plan", str(plan)]
    command += ["--clients", str(clients)]
    for name, value in limits.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    summary: Measured = json.loads(done.stdout)
    return summary


def loop_name(*, processes: int, threads: int) -> str:
    """Of one way to run the plain loop."""
    several = "es" if processes > 1 else ""
    return f"{processes} process{several}, {threads} thread{'s' if threads > 1 else ''}"


def _round(contest: Contest, *, say: Say) -> Measured:
    found: Measured = {"loop": _loops(contest)}
    say(f"  plain loop   {', '.join(f'{rate:.0f}/s' for rate in found['loop'].values())}")
    for launch in contest.launches:
        found[launch.name] = _serve(launch, contest=contest)
        told = [f"{f['rate']:.0f}/s ({f['p50']:.0f} ms)" for f in found[launch.name].values()]
        say(f"  {launch.name:12} {', '.join(told)}")
    return found


def _loops(contest: Contest) -> dict[str, float]:
    cores = available_cores()
    ways = {(1, 1), (cores, 1), (1, cores)}
    return {
        loop_name(processes=processes, threads=threads): loop_rate(
            contest.bundle,
            plan=contest.plan,
            seconds=contest.seconds,
            threads=threads,
            processes=processes,
        )
        for processes, threads in sorted(ways)
    }


def _serve(launch: Launch, *, contest: Contest) -> dict[int, Measured]:
    with running(launch, log=contest.logs / f"{launch.name}.log") as server:
        # Peers say that they are ready before they have loaded the model.
        first = load(server.url, plan=contest.plan, clients=1, requests=_WARM_UP_REQUESTS)
        if first["errors"] or first["wrong"]:
            raise NotReadyError(f"{launch.name} answers wrongly: {first}")
        return {
            clients: load(
                server.url,
                plan=contest.plan,
                clients=clients,
                seconds=contest.seconds,
                warm_up=_WARM_UP_SECONDS,
            )
            for clients in CLIENTS
        }


def _medians(rounds: Sequence[Mapping[int, Measured]]) -> dict[int, Measured]:
    """By clients; errors and wrong answers are summed up."""
    found: dict[int, Measured] = {}
    for clients in rounds[0]:
        each = [one[clients] for one in rounds]
        middle = {n: statistics.median(e[n] for e in each) for n in ("rate", "p50", "p99")}
        bad = {n: sum(e[n] for e in each) for n in ("requests", "errors", "wrong")}
        found[clients] = {**middle, **bad}
    return found


def _ratios(rounds: Sequence[Measured], *, peers: Sequence[str]) -> dict[str, dict[int, float]]:
    """Our rate over the loop's at the same parallelism, and over each peer's, by clients."""
    cores = available_cores()
    found: dict[str, dict[int, float]] = {"plain loop": {}}
    for clients in CLIENTS:
        loop = loop_name(processes=min(clients, cores), threads=1)
        ours = [(each, each[OURS][clients]["rate"]) for each in rounds]
        found["plain loop"][clients] = statistics.median(r / e["loop"][loop] for e, r in ours)
        for peer in peers:
            if peer != OURS:
                ratio = statistics.median(r / e[peer][clients]["rate"] for e, r in ours)
                found.setdefault(peer, {})[clients] = ratio
    return found
