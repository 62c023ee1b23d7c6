"""The serving benchmark's result for people: figures, and how they stand to their aims."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.serving_throughput import OURS

Measured = dict[str, Any]


@dataclass(frozen=True)
class Aim:
    """A figure that was promised."""

    what: str
    value: float
    aim: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value <= self.aim if self.at_most else self.value >= self.aim

    def __str__(self) -> str:
        sign, verdict = "≤" if self.at_most else "≥", "met" if self.met else "MISSED"
        return f"{self.what:58} {self.value:9.3g}   {sign} {self.aim:<6g} {verdict}"


def table(result: Measured) -> str:
    """All of it."""
    lines = [str(result["machine"])]
    for architecture, measured in result.get("throughput", {}).items():
        lines += ["", architecture, *_throughput(measured)]
    lines += ["", *_resources(result), "", *map(str, aims(result))]
    return "\n".join(lines)


def aims(result: Measured) -> list[Aim]:
    """What was promised, as far as it was measured."""
    found: list[Aim] = []
    for architecture, measured in result.get("throughput", {}).items():
        found += _throughput_aims(measured, name=architecture)
    if start := result.get("start"):
        found.append(Aim("start to ready, s", start["median"], 1.5, at_most=True))
    if memory := result.get("memory"):
        worst = max(each["rss"] for each in memory["mb"].values())
        found.append(Aim("resident memory, all processes, MB", worst, 200, at_most=True))
        found.append(Aim("installed, MB", result["installed_mb"], 300, at_most=True))
    if models := result.get("models"):
        bad = models["errors"] + models["wrong"]
        found.append(Aim("10 models: errors and wrong answers", bad, 0, at_most=True))
        # Less than a picture, decoded, kept for each 500 of them.
        found.append(Aim("10 models: growth, MB in 1,000", models["slope_mb"], 1, at_most=True))
    return found


def _throughput_aims(measured: Measured, *, name: str) -> Iterator[Aim]:
    ratios, ours = measured["ratios"], measured["served"][OURS]
    for clients, ratio in ratios["plain loop"].items():
        yield Aim(f"{name}, {clients} clients: of the plain loop", ratio, 0.8)
    spread = ours[8]["p99"] / ours[8]["p50"]
    yield Aim(f"{name}, 8 clients: p99 over p50", spread, 3, at_most=True)
    for peer, times in {"mms": 3, "mms-cores": 3, "litserve": 2}.items():
        for clients, ratio in ratios.get(peer, {}).items():
            yield Aim(f"{name}, {clients} clients: times {peer}", ratio, times)
    bad = sum(one["errors"] + one["wrong"] for one in ours.values())
    yield Aim(f"{name}: errors and wrong answers", bad, 0, at_most=True)


def _throughput(measured: Measured) -> Iterator[str]:
    yield f"  {'':12}" + "".join(f"{c:>4} clients: /s   p50   p99" for c in (1, 8, 32))
    for name, served in measured["served"].items():
        cells = (f"{s['rate']:16.1f} {s['p50']:5.0f} {s['p99']:5.0f}" for s in served.values())
        bad = sum(each["errors"] + each["wrong"] for each in served.values())
        yield f"  {name:12}{''.join(cells)}" + (f"   {bad} ERRORS" if bad else "")
    for name, rate in measured["loop"].items():
        yield f"  plain loop, {name}: {rate:.1f}/s"


def _resources(result: Measured) -> Iterator[str]:
    if start := result.get("start"):
        worst = f"worst of {start['times']}: {start['worst']:.2f} s"
        yield f"start to ready: {start['median']:.2f} s, {worst}"
    for when, mb in result.get("memory", {}).get("mb", {}).items():
        yield f"memory {when}: RSS {mb['rss']:.0f} MB, PSS {mb['pss']:.0f} MB"
    if "installed_mb" in result:
        yield f"installed: {result['installed_mb']:.0f} MB"
    if models := result.get("models"):
        yield (
            f"{models['models']} models, {models['fit']} fit: {models['requests']:,} requests, "
            f"{models['rate']:.0f}/s, {models['errors']} errors, {models['wrong']} wrong; memory "
            f"by fifths {models['pss_mb']} MB, slope {models['slope_mb']:.2f} MB in 1,000"
        )
