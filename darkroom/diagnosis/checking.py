"""Whether a diagnosis can be made as configured, before anything is trained."""

from pathlib import Path

from darkroom.capture.layout import RecordingFolder
from darkroom.config.debugging import DiagnosisConfig
from darkroom.errors import UserError
from darkroom.rules.checking import check_rules


def diagnosis_problems(config: DiagnosisConfig) -> list[str]:
    """Problems, one line each: unknown rules and parameters, files that are not there.

    Files of the user's rules are imported. Nothing is asked of a diagnosis that is off.
    """
    if not config.enabled:
        return []
    return [*_rule_problems(config), *_other_run_problems(config)]


def moved_rule_problems(config: DiagnosisConfig, *, checkout: Path) -> list[str]:
    """Problems of the user's rules, one line each, where only the checkout comes along.

    Args:
        checkout: its folder, which is the working directory there.
    """
    if not config.enabled:
        return []
    files = {custom.function.rpartition(":")[0]: None for custom in config.custom}
    return [
        f"diagnosis.custom: {file!r} does not come along: a run on SageMaker takes the checkout "
        f"with it; put the file there and name it relative to {str(checkout)!r}"
        for file in files
        if Path(file).is_absolute() or not (checkout / file).is_file()
    ]


def other_run(config: DiagnosisConfig) -> RecordingFolder | None:
    """The recording with which `similar_across_runs` is to compare, if it names one."""
    rule = config.rules.get("similar_across_runs")
    named = rule.parameters.get("other_trials") if rule and rule.enabled else None
    if not isinstance(named, str) or not named:
        return None
    folder = Path(named).expanduser()
    inner = folder / "recording"
    return RecordingFolder(inner if inner.is_dir() else folder)


def _rule_problems(config: DiagnosisConfig) -> list[str]:
    try:
        check_rules(config)
    except UserError as error:
        return error.problems
    return []


def _other_run_problems(config: DiagnosisConfig) -> list[str]:
    other = other_run(config)
    if other is None or other.facts.is_file():
        return []
    return [
        "diagnosis.rules.similar_across_runs.parameters.other_trials: "
        f"{str(other.root)!r} is no recording; name a run's folder, .darkroom/runs/<run>"
    ]
