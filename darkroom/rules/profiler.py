"""Rules over where the time goes and what the machine does."""

from darkroom.rules import (
    profiler_gpu,
    profiler_machine,
    profiler_memory,
    profiler_overall,
    profiler_steps,
)
from darkroom.rules.rule import Rule

PROFILER_RULES: tuple[Rule, ...] = (
    *profiler_steps.RULES,
    *profiler_memory.RULES,
    *profiler_machine.RULES,
    *profiler_gpu.RULES,
    *profiler_overall.RULES,
)
"""SageMaker's profiler rules, as their documentation has them, and ours for CPUs.

Of SageMaker's, `scan_interval_us` is left out: a recording is judged as a whole.
"""
