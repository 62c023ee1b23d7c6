"""What an engine was measured at."""

from typing import Any

from darkroom.compilation.results import EngineResult, Measurement
from darkroom.models.engine import EngineName


def measured(engine: EngineName, problem: str = "", **values: Any) -> EngineResult:
    figures = {
        "load_ms": 5.0,
        "latency_ms": 10.0,
        "latency_ms_p99": 12.0,
        "images_per_second": {1: 100.0, 8: 120.0, 32: 110.0},
        "memory_mb": 50.0,
        "size_mb": 10.0,
        "top1_agreement": 1.0,
        "probability_difference": 1e-6,
    }
    return EngineResult(
        engine=engine,
        problem=problem,
        version="1",
        measurement=Measurement.model_validate(figures | values),
    )
