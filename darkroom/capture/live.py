"""Judging a training while it runs, in the process that trains, from what is in memory."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from darkroom.capture.logs import StepLine, step_log
from darkroom.capture.looks import Look
from darkroom.capture.margins import MarginMeter
from darkroom.capture.table import TensorTable
from darkroom.config.debugging import DiagnosisConfig
from darkroom.diagnosis.result import Diagnosis
from darkroom.rules.checking import configured_rules
from darkroom.rules.evidence import Evidence, TrainingFacts
from darkroom.rules.findings import Finding
from darkroom.rules.judging import judge_by
from darkroom.rules.runs import stalled_training
from darkroom.training.history import EpochMetrics

_LEAST_SECONDS = 2.0
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
        facts: TrainingFacts,
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
        self._next = time.monotonic() + _LEAST_SECONDS
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
        self._next = now + max(_LEAST_SECONDS, (now - started) / _SHARE)
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
