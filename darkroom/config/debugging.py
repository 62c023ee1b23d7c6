"""What is recorded of a training, and how it is judged."""

from typing import Annotated, Literal

from pydantic import Field

from darkroom.config.sections import Section

Severity = Literal["note", "warning", "error"]
Action = Literal["note", "warn", "stop", "fail"]


class RecordingConfig(Section):
    """What is recorded while training; the defaults cost a few percent of the time."""

    backend: Literal["auto", "smdebug", "torch", "off"] = "auto"
    """SageMaker Debugger's format, or Parquet; 'auto': the former where smdebug is installed."""
    every_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between two looks into the network; 0: four an epoch, at least 25 steps apart."""
    first_steps: Annotated[int, Field(ge=0)] = 5
    """Steps at the start that are all looked into: bad initial weights show there."""
    losses_every_steps: Annotated[int, Field(ge=1)] = 10
    """Steps between two losses in the tensors; the step log has every one."""
    tensors: Literal["statistics", "full"] = "statistics"
    """Statistics of each tensor, or the tensors themselves too: of a resnet18 50 MB a look in
    Parquet and 75 MB in smdebug's format, instead of a few MB in all."""
    system_milliseconds: Annotated[int, Field(ge=100, le=60_000)] = 500
    """Between two samples of CPU, memory, disk, network and GPU."""
    profiled_steps: Annotated[int, Field(ge=0)] = 5
    """Steps whose operators are timed: after the first five, or, if fewer are timed, the first.
    Each costs up to 60 ms. 0: none."""


class RuleConfig(Section):
    """What differs from a rule's defaults."""

    enabled: bool = True
    """false: not evaluated."""
    severity: Severity | None = None
    """Of its findings; null: the rule's own."""
    action: Action | None = None
    """Note, warn, stop the training and keep its best epoch, or fail the run; null: by severity."""
    parameters: dict[str, int | float | str | bool | None] = {}
    """By name; docs/rules.md lists them."""


class CustomRuleConfig(RuleConfig):
    """A rule of the user's."""

    function: Annotated[str, Field(pattern=r"^[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*$")]
    """`FILE.py:FUNCTION`, relative to the working directory."""


class DiagnosisConfig(Section):
    """How a recorded training is judged."""

    enabled: bool = True
    """false: recorded, if at all, but not judged."""
    live: bool = True
    """Judge while training runs, so that `stop` and `fail` end it early."""
    rules: dict[str, RuleConfig] = {}
    """By rule, such as `vanishing_gradient`: what differs from its defaults."""
    custom: tuple[CustomRuleConfig, ...] = ()
    """Rules of your own."""


class Debugging(Section):
    """Both, as a training gets them; in a managed job as the hyperparameter 'debugging'."""

    recording: RecordingConfig = RecordingConfig()
    diagnosis: DiagnosisConfig = DiagnosisConfig()

    @property
    def of_trials(self) -> "Debugging":
        """How the trials of a search are recorded: pruning ends them, not rules."""
        quiet = self.diagnosis.model_copy(update={"live": False})
        return self.model_copy(update={"diagnosis": quiet})

    @property
    def is_on(self) -> bool:
        """Whether anything is recorded."""
        return self.recording.backend != "off"


NO_DEBUGGING = Debugging(recording=RecordingConfig(backend="off"))
