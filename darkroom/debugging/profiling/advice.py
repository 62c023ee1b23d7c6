"""What a run costs, how much of it was idle, and what would cost less: estimates, and why.

Each estimate is computed from what was measured of the run, by a simple model that `basis`
states. None says what another run would really take.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from darkroom.debugging.profiling.summary import MeasuredUse, measured_use
from darkroom.debugging.rules.rule import number
from darkroom.telemetry.evidence import Evidence

# --- instances ---
# How large a SageMaker instance type is, as far as its name tells.

_NAME = re.compile(r"^ml\.(?P<family>[cmr])\d[a-z]*\.(?P<size>large|xlarge|\d+xlarge)$")
_GIB_A_CORE = {"c": 2, "m": 4, "r": 8}


@dataclass(frozen=True)
class InstanceSize:
    """Virtual CPUs and memory."""

    cores: int
    memory_gib: int


def instance_size(name: str) -> InstanceSize | None:
    """Of the families c, m and r, where AWS keeps to a rule; None of any other.

    A large has 2 virtual CPUs, an xlarge 4, an Nxlarge 4·N; a core comes with 2 (c), 4 (m)
    or 8 GiB (r).
    """
    found = _NAME.match(name)
    if not found:
        return None
    size = found["size"]
    cores = 2 if size == "large" else 4 * int(size.removesuffix("xlarge") or 1)
    return InstanceSize(cores=cores, memory_gib=cores * _GIB_A_CORE[found["family"]])


# --- advice ---

_HOUR = 3600
_WORTH_SAYING = 0.03
"""Share of the run's time that a saving has to reach."""
_CHEAPER = 0.1
"""Share of the price by which another instance type has to be cheaper."""
_SLOWER = 1.25
"""How much longer a cheaper instance type may take."""
_FREE_MEMORY = 0.8
"""Share of an instance's memory that a training may fill."""
_CORE_GAIN = 0.7
"""What a further core brings of what the first does, on small images."""
_IDLE_CORES = 0.25
"""Share of the cores that has to idle before more threads are advised."""
_FULL = 0.9
"""Share of the CPU beyond which a training might have used more, had there been more."""
_LARGE_BATCH = 256
_SMALL_IMAGE = 64
"""Pixels; up to here one thread is faster than several: see darkroom.training.learner."""


class CostLine(BaseModel):
    """A sum of money or time, and where it comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["run", "idle", "saving"]
    """What the run costs; what part of that was idle; what a change would save."""
    advice: str
    """What it is, or what to do."""
    seconds: float
    """That the run takes, was idle, or would save; 0: it would not be faster."""
    dollars: float | None
    """The same; None: no price is known."""
    basis: str
    """How that was measured or estimated."""
    estimated: bool


def run_costs(
    evidence: Evidence,
    *,
    instance_type: str | None = None,
    price_per_hour: float | None = None,
    alternatives: Mapping[str, float] | None = None,
) -> list[CostLine]:
    """What this run costs and what share of that was idle, the run itself first.

    Args:
        instance_type: that it ran on; None: a machine without a price. Then the run's cost
            on each of the alternatives is estimated.
        price_per_hour: USD, of that type.
        alternatives: USD per hour by instance type.
    """
    use = measured_use(evidence)
    if use.seconds <= 0:
        return []
    if instance_type is None:
        return [*_elsewhere(use, alternatives=alternatives or {}), *_idle(use, price=None)]
    line = CostLine(
        kind="run",
        advice=f"this run on {instance_type}",
        seconds=use.seconds,
        dollars=_dollars(use.seconds, price=price_per_hour),
        basis=f"measured time{_at(price_per_hour)}; a job's starting and ending come on top",
        estimated=False,
    )
    return [line, *_idle(use, price=price_per_hour)]


def cost_advice(
    evidence: Evidence,
    *,
    instance_type: str | None = None,
    price_per_hour: float | None = None,
    alternatives: Mapping[str, float] | None = None,
) -> list[CostLine]:
    """What would save time or money in a run like this one, what saves most first.

    Args:
        instance_type: that it ran on; None: a machine without a price.
        price_per_hour: USD, of that type.
        alternatives: USD per hour by instance type.
    """
    use = measured_use(evidence)
    if use.seconds <= 0:
        return []
    lines = [
        line
        for line in (
            _overlapped_loading(use, price=price_per_hour),
            _larger_batches(use, evidence=evidence, price=price_per_hour),
            _more_threads(use, evidence=evidence, price=price_per_hour),
        )
        if line and line.seconds >= _WORTH_SAYING * use.seconds
    ]
    if instance_type and price_per_hour:
        lines += _cheaper_instance(
            use,
            instance_type=instance_type,
            price=price_per_hour,
            alternatives=alternatives or {},
        )
    return sorted(lines, key=lambda line: (-(line.dollars or 0.0), -line.seconds))


def _elsewhere(use: MeasuredUse, *, alternatives: Mapping[str, float]) -> Iterator[CostLine]:
    """The run on each type whose size is known, the cheapest first."""
    costs = []
    for name, price in alternatives.items():
        size = instance_size(name)
        if size and use.gpu is None and _fits(use, size):
            seconds = use.seconds * _slow_down(use, size)
            costs.append((seconds * price / _HOUR, seconds, name, price))
    for dollars, seconds, name, price in sorted(costs):
        yield CostLine(
            kind="run",
            advice=f"this run on {name} would cost",
            seconds=seconds,
            dollars=dollars,
            basis=(
                f"${price:g} an hour; {_busy(use)}; assumes cores as fast as this machine's; "
                "a job's starting comes on top"
            ),
            estimated=True,
        )


def _idle(use: MeasuredUse, *, price: float | None) -> Iterator[CostLine]:
    shares = {
        "the GPU idled": None if use.gpu is None else 1 - use.gpu,
        "the CPU idled": None if use.cpu is None else 1 - use.cpu,
        "the training waited for images": use.phases["data_wait"] / use.seconds,
    }
    for advice, share in shares.items():
        if share is None:
            continue
        seconds = max(0.0, share) * use.seconds
        yield CostLine(
            kind="idle",
            advice=advice,
            seconds=seconds,
            dollars=_dollars(seconds, price=price),
            basis=f"measured: {share:.0%} of {use.seconds:.0f} s{_at(price)}",
            estimated=False,
        )


def _overlapped_loading(use: MeasuredUse, *, price: float | None) -> CostLine:
    wait = use.phases["data_wait"]
    rest = sum(use.phases[phase] for phase in ("transfer", "forward", "backward", "optimiser"))
    free = 1.0 if use.cpu is None or use.gpu is not None else max(0.0, 1 - use.cpu)
    seconds = min(wait, rest) * free
    return _saving(
        "load the images of the next batch in a thread or process of its own",
        seconds=seconds,
        price=price,
        basis=(
            f"training waited {wait:.0f} s for images; assumes that loading runs beside the "
            f"computation, on the {free:.0%} of the CPU that were free"
        ),
    )


def _larger_batches(
    use: MeasuredUse, *, evidence: Evidence, price: float | None
) -> CostLine | None:
    size = int(number(evidence, "batch_size", default=0))
    if not 0 < size < _LARGE_BATCH:
        return None
    optimiser = use.phases["optimiser"]
    return _saving(
        f"double training.batch_size from {size} to {2 * size}",
        seconds=optimiser / 2,
        price=price,
        basis=(
            f"the optimiser took {optimiser:.0f} s; assumes that its time goes by the step, and "
            "all other time by the image; the learning rate has to be found anew"
        ),
    )


def _more_threads(use: MeasuredUse, *, evidence: Evidence, price: float | None) -> CostLine | None:
    small = number(evidence, "image_size", default=0) <= _SMALL_IMAGE
    if use.own_cores is None or use.cpu is None or use.gpu is not None or small:
        return None
    idle = use.cores * (1 - use.cpu)
    if idle < _IDLE_CORES * use.cores:
        return None
    compute = sum(use.phases[phase] for phase in ("forward", "backward", "optimiser"))
    busy = max(1.0, use.own_cores)
    return _saving(
        f"compute with {use.cores} threads (training.threads: {use.cores})",
        seconds=compute * (1 - busy / (busy + _CORE_GAIN * idle)),
        price=price,
        basis=(
            f"{_busy(use)}, and {idle:.1f} idled; assumes that each further core brings "
            f"{_CORE_GAIN:.0%} of the first"
        ),
    )


def _cheaper_instance(
    use: MeasuredUse, *, instance_type: str, price: float, alternatives: Mapping[str, float]
) -> Iterator[CostLine]:
    """The cheapest type that is not much slower, if there is one."""
    if use.gpu is not None or not use.cores:
        return
    now = use.seconds * price / _HOUR
    offers = []
    for name, other in alternatives.items():
        size = instance_size(name)
        if name == instance_type or size is None or not _fits(use, size):
            continue
        factor = _slow_down(use, size)
        if factor <= _SLOWER:
            offers.append((use.seconds * factor * other / _HOUR, name, factor))
    if not offers or min(offers)[0] > (1 - _CHEAPER) * now:
        return
    dollars, name, factor = min(offers)
    yield CostLine(
        kind="saving",
        advice=f"train on {name} instead of {instance_type}",
        seconds=0.0,
        dollars=now - dollars,
        basis=(
            f"{_busy(use)}, and {use.memory_gib or 0:.1f} GiB were resident; assumes cores of "
            f"the same speed, and {factor:.2f} times the time"
        ),
        estimated=True,
    )


def _busy(use: MeasuredUse) -> str:
    if use.own_cores is None:
        return "how many cores were busy was not measured"
    return f"the training kept {use.own_cores:.1f} of {use.cores} cores busy"


def _fits(use: MeasuredUse, size: InstanceSize) -> bool:
    return use.memory_gib is None or use.memory_gib <= _FREE_MEMORY * size.memory_gib


def _slow_down(use: MeasuredUse, size: InstanceSize) -> float:
    """How many times longer it takes on fewer cores than it needs; never less than 1."""
    return max(1.0, _needed_cores(use) / size.cores)


def _needed_cores(use: MeasuredUse) -> float:
    """Those that the training kept busy; all, where other programs may have kept it from some."""
    if use.cpu is not None and use.cpu > _FULL:
        return float(use.cores)
    return use.own_cores or 1.0


def _saving(advice: str, *, seconds: float, price: float | None, basis: str) -> CostLine:
    return CostLine(
        kind="saving",
        advice=advice,
        seconds=seconds,
        dollars=_dollars(seconds, price=price),
        basis=basis,
        estimated=True,
    )


def _dollars(seconds: float, *, price: float | None) -> float | None:
    return None if price is None else seconds * price / _HOUR


def _at(price: float | None) -> str:
    return "" if price is None else f" at ${price:g} an hour"
