"""Timing the operators of some steps with torch's profiler.

The profiler costs 1 µs an operator while it records, and 8 µs more when it stops: a step of
mobilenet_v3_small has 7,800, so that 50 steps would cost 3 s. The five consecutive ones that
are recorded by default tell the same: operators repeat from step to step. Torch's own table
(`key_averages`) takes half a second more a step; here it is read from the trace, after the
training, by operators_table.
"""

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler import profile, record_function

from darkroom.base.files import atomic_path
from darkroom.telemetry.operators import STEP_PREFIX, TABLE_FILE, TRACE_FILE

_WARM_UP = 5
"""Steps in which memory and kernels are still being chosen."""
_FAST = 1
"""Of gzip's levels; the best makes a trace a fifth smaller, and takes three times as long."""


def recorded_steps(count: int) -> range:
    """Which steps are recorded, if so many are: after the warm-up, or the first if few are."""
    first = _WARM_UP if count >= _WARM_UP else 0
    return range(first, first + count)


class OperatorProfiler:
    """Records the operators of a training's first steps; all calls from one thread.

    Nothing that goes wrong with it reaches the training; `problem` says what did.

    Args:
        folder: gets trace.json.gz. A trace that is there, of the start before an
            interruption, is kept.
        steps: how many are recorded, after the warm-up; 0: none.
    """

    def __init__(self, folder: Path, *, steps: int) -> None:
        self._folder, self._steps = folder, recorded_steps(steps)
        self._done = 0
        self._profile: Any = None
        self._annotation: Any = None
        self._ended = not steps
        self.problem = ""

    def start(self) -> None:
        """Before each step."""
        if not self._done:
            self._ended = self._ended or (self._folder / TRACE_FILE).exists()
        if not self._ended and self._done in self._steps:
            self._guarded(self._begin_step)

    def step(self) -> None:
        """After each step."""
        if self._ended:
            return
        self._guarded(self._end_step)
        self._done += 1
        if self._done == self._steps.stop:
            self.stop()

    def stop(self) -> None:
        """Write what was recorded; early, where the training ends before the window."""
        if self._ended:
            return
        self._ended = True
        if self._profile:
            self._guarded(self._finish)

    def _begin_step(self) -> None:
        if self._profile is None:
            self._profile = profile(use_device="cuda" if torch.cuda.is_available() else None)
            with _quiet():
                self._profile.__enter__()
        if self._annotation is None:
            self._annotation = record_function(f"{STEP_PREFIX}{self._done}")
            self._annotation.__enter__()

    def _end_step(self) -> None:
        if self._annotation is not None:
            self._annotation.__exit__(None, None, None)
            self._annotation = None

    def _finish(self) -> None:
        self._end_step()
        recording, self._profile = self._profile, None
        if recording is None:
            return
        with _quiet():
            recording.__exit__(None, None, None)
        (self._folder / TABLE_FILE).unlink(missing_ok=True)
        with atomic_path(self._folder / TRACE_FILE, durable=False) as temporary:
            plain = temporary.with_name("plain.json")
            recording.export_chrome_trace(str(plain))
            with plain.open("rb") as source, gzip.open(temporary, "wb", _FAST) as packed:
                shutil.copyfileobj(source, packed, 1 << 20)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a measurement must not end a training
            self._ended = True
            self.problem = f"{type(error).__name__}: {error}"
            self._abandon()

    def _abandon(self) -> None:
        recording, self._profile, self._annotation = self._profile, None, None
        if recording:
            with suppress(Exception), _quiet():
                recording.__exit__(None, None, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep libkineto from writing to the terminal: on machines without a GPU it says so."""
    before = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = before or "6"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("KINETO_LOG_LEVEL", None)
