"""The configured rule: which engine is best, and whether by enough to leave the default."""

from collections.abc import Callable, Sequence

from darkroom.compilation.results import EngineResult, Measurement, Objective
from darkroom.config.compilation import CompilationConfig
from darkroom.engines.protocol import DEFAULT_ENGINE, EngineName

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
