"""Judging a training while it runs, in the process that trains, from what is in memory."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from darkroom.config.debugging import DiagnosisConfig
from darkroom.debugging.recording.logs import MarginMeter, StepLine, step_log
from darkroom.debugging.recording.snapshots import Look
from darkroom.debugging.rules.runner import configured_rules, judge_by
from darkroom.debugging.rules.values import stalled_training
from darkroom.telemetry.epochs import EpochMetrics
from darkroom.telemetry.evidence import Evidence, RunMetadata
from darkroom.telemetry.findings import Diagnosis, Finding
from darkroom.telemetry.tensors import TensorTable

# --- live ---

_MIN_SECONDS = 2.0
_ENDING = ("stop", "fail")
_SHARE = 0.01
"""Of the time that judging may take."""


class LiveJudge:
    """Applies the rules again and again, as seldom as it takes to cost little.

    Args:
        on_finding: called with each rule's first finding that is more than a note.
    """

    def __init__(
        self,
        config: DiagnosisConfig,
        *,
        facts: RunMetadata,
        margins: MarginMeter,
        paths: tuple[str, ...],
        on_finding: Callable[[Finding], None],
    ) -> None:
        self._rules, self._facts = configured_rules(_available(config)), facts
        self._stall_rule = next(
            (r for r in self._rules if r.rule.evaluate is stalled_training and r.config.enabled),
            None,
        )
        self._margins, self._paths, self._on_finding = margins, paths, on_finding
        self._table = TensorTable()
        self._steps: list[StepLine] = []
        self._epochs: dict[int, EpochMetrics] = {}
        self._told: set[str] = set()
        self.verdict: Finding | None = None
        """The finding whose action is to stop or to fail the training."""
        self.hangs: Finding | None = None
        """The same, where it is that the training makes no more steps."""
        self._next = time.monotonic() + _MIN_SECONDS
        self._is_pending = False

    def go_on_from(
        self, table: TensorTable, *, steps: Iterable[StepLine], epochs: Iterable[EpochMetrics]
    ) -> None:
        """Take in what was recorded before an interruption: it counts as well."""
        self._table, self._steps = table, [*steps]
        self._epochs = {metrics.epoch: metrics for metrics in epochs}

    def look(self, look: Look) -> None:
        """Take in a look."""
        for one in look.tensors:
            value = one.value if one.kind in ("logits", "labels") else None
            self._table.add(
                one.name,
                kind=one.kind,
                mode=look.mode,
                step=look.step,
                statistics=one.statistics,
                units=one.units,
                value=None if value is None else partial(_same, value),
            )

    def step(self, line: StepLine) -> None:
        """Take in a step."""
        self._steps.append(line)

    def epoch(self, metrics: EpochMetrics) -> None:
        """Take in an epoch, and judge."""
        self._epochs[metrics.epoch] = metrics  # once, though it was trained twice
        self._judge()

    def after_step(self, looked: bool) -> None:
        """Judge, if there is something new and enough time has passed."""
        self._is_pending = self._is_pending or looked
        if self._is_pending and time.monotonic() >= self._next:
            self._judge()

    @property
    def stall_seconds(self) -> float | None:
        """After which a training without a new step has stalled; None: nobody wants to know."""
        rule = self._stall_rule
        return float(rule.parameters["threshold"] or 0) if rule else None

    def look_for_stall(self) -> None:
        """See how long ago the last step was; may be called from another thread."""
        if self._stall_rule is None:
            return
        newest = Evidence(
            facts=self._facts,
            tensors=TensorTable(),
            steps=step_log(self._steps[-1:]),
            ended=False,
            now=time.time(),
        )
        diagnosis = judge_by(newest, rules=[self._stall_rule], live=True)
        self._take(diagnosis)
        self.hangs = next((one for one in diagnosis.findings if one.action in _ENDING), None)

    def evidence(self) -> Evidence:
        """What is known so far."""
        return Evidence(
            facts=self._facts,
            tensors=self._table,
            steps=step_log(self._steps),
            epochs=tuple(self._epochs[number] for number in sorted(self._epochs)),
            margins=self._margins.margins(self._paths),
            ended=False,
            now=time.time(),
        )

    def _judge(self) -> None:
        started, self._is_pending = time.monotonic(), False
        diagnosis = judge_by(self.evidence(), rules=self._rules, live=True)
        now = time.monotonic()
        self._next = now + max(_MIN_SECONDS, (now - started) / _SHARE)
        self._take(diagnosis)

    def _take(self, diagnosis: Diagnosis) -> None:
        """Tell what is new, and see whether it ends the training."""
        for finding in diagnosis.findings:
            if finding.severity != "note" and finding.rule not in self._told:
                self._told.add(finding.rule)
                self._on_finding(finding)
        ending = (one for one in diagnosis.findings if one.action in _ENDING)
        self.verdict = self.verdict or next(ending, None)


def _available(config: DiagnosisConfig) -> DiagnosisConfig:
    """Without rules of the user's whose file is not here: a managed job has an image of its own.

    They are evaluated when the training has ended, where the pipeline runs.
    """
    here = tuple(one for one in config.custom if Path(one.function.partition(":")[0]).is_file())
    return config.model_copy(update={"custom": here})


def _same(value: NDArray[Any]) -> NDArray[Any]:
    return value


# --- stall watch ---
# Seeing that a training stands still, from beside it, and ending it where a rule says so.

_LOOKS = 10
"""Within the seconds after which a training counts as stalled."""
_SHORTEST, _LONGEST = 0.1, 60.0
"""Seconds between two looks."""
GRACE_SECONDS = 20.0
"""That a training which hangs has, to end by itself once it is interrupted."""
_INTERRUPTIONS = 2
"""Within those seconds: Python drops an exception that is raised in a destructor or in a callback
of the garbage collector, and nothing tells us that it did."""
_SIGNAL = signal.SIGUSR1


class TrainingHangs(BaseException):
    """A rule ends a training that makes no more steps."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.title)
        self.finding = finding


def leave_at_once(finding: Finding) -> None:
    """End the process: the training hangs in code that cannot be interrupted."""
    print(
        f"the training was ended by a rule: {finding.in_words}; it hangs in code that cannot be "
        "interrupted, so its process ends",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


@contextmanager
def watching_for_stalls(
    judge: LiveJudge, *, give_up: Callable[[Finding], None] = leave_at_once
) -> Iterator[None]:
    """Let a judge look for a stall again and again, while the block runs.

    A stall whose action is to stop or to fail the training interrupts the block's thread.

    Args:
        give_up: called where that does not help, from another thread; ends the process.

    Raises:
        TrainingHangs: the training was interrupted.
    """
    threshold = judge.stall_seconds
    if threshold is None:
        yield
        return
    ended = threading.Event()
    interval = min(max(threshold / _LOOKS, _SHORTEST), _LONGEST)
    with _interruptible(judge) as interrupt:

        def watch() -> None:
            while not ended.wait(interval):
                judge.look_for_stall()
                if judge.hangs:
                    for _ in range(_INTERRUPTIONS):
                        interrupt()
                        if ended.wait(GRACE_SECONDS / _INTERRUPTIONS):
                            return
                    give_up(judge.hangs)
                    return

        thread = threading.Thread(target=watch, name="stall watch", daemon=True)
        try:
            try:
                thread.start()
                yield
            finally:
                ended.set()
        finally:  # the interruption may come while the thread is started, or just before the end
            ended.set()
            thread.join()


@contextmanager
def _interruptible(judge: LiveJudge) -> Iterator[Callable[[], None]]:
    """Yield what makes this thread raise TrainingHangs, from another one.

    A signal ends waiting too, such as for a lock or a socket, but only the main thread has
    handlers; in any other the exception is raised at its next line of Python.
    """
    thread = threading.get_ident()

    def raise_it(*_: object) -> None:
        if judge.hangs:
            raise TrainingHangs(judge.hangs)

    if threading.current_thread() is threading.main_thread():
        before = signal.signal(_SIGNAL, raise_it)
        try:
            yield lambda: signal.pthread_kill(thread, _SIGNAL)
        finally:
            signal.signal(_SIGNAL, before)
        return

    class Hangs(TrainingHangs):
        """Python makes it without arguments."""

        def __init__(self) -> None:
            assert judge.hangs  # noqa: S101 - nothing else lets it be raised
            super().__init__(judge.hangs)

    def interrupt() -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Hangs))

    yield interrupt
