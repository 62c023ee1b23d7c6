"""What cannot be diagnosed as configured is told before anything is trained."""

import subprocess
import sys
from pathlib import Path

import pytest

from checkout import CHECKOUT
from commands.check import check_all
from commands.main_job import run_training
from darkroom.base.errors import UserError
from darkroom.config.debugging import CustomRuleConfig, DiagnosisConfig, RuleConfig
from darkroom.debugging.diagnosis import diagnosis_problems, moved_rule_problems, other_run

WRONG = (
    "diagnosis.rules={vanishing_gradients: {}, dead_relu: {parameters: {threshold_layer: half}}, "
    "overfit: {parameters: {ratio: 1}}, confusion: {action: stop}, "
    "similar_across_runs: {parameters: {other_trials: /nowhere}}}",
    "diagnosis.custom=[{function: 'mine.py:missing'}, {function: 'broken.py:mine'}, "
    "{function: 'absent.py:mine'}]",
)
TOLD = (
    "did you mean 'vanishing_gradient'",
    "threshold_layer must be a number, not 'half'",
    "unknown parameter 'ratio'",
    "diagnosis.rules.confusion.action: 'stop' ends nothing: confusion is judged when",
    "'/nowhere' is no recording",
    "'mine.py' has no function 'missing'",
    "'broken.py' cannot be imported: SyntaxError",
    "there is no file 'absent.py'",
)


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of rules, in which the test works."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def mine(evidence, *, limit=2.0):\n    return []\n")
    (tmp_path / "broken.py").write_text("def mine(evidence:\n")
    return tmp_path


def test_what_is_not_judged_while_it_runs_stops_nothing() -> None:
    stops = RuleConfig(action="stop")
    late = DiagnosisConfig(live=False, rules={"overfit": stops})
    (problem,) = diagnosis_problems(late)
    assert "diagnosis.live is false" in problem
    assert diagnosis_problems(DiagnosisConfig(rules={"overfit": stops})) == []


def similar(**values: object) -> DiagnosisConfig:
    return DiagnosisConfig(rules={"similar_across_runs": RuleConfig.model_validate(values)})


def test_check_tells_all_problems_of_rules_at_once(
    rules: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as raised:
        check_all(
            stack="local",
            config=CHECKOUT / "configs" / "digits.yaml",
            data=str(rules / "no-such-images"),
            overrides=WRONG,
        )
    told = "\n".join(raised.value.problems)
    assert all(text in told for text in (*TOLD, "no-such-images"))
    assert len(raised.value.problems) == len(TOLD) + 1
    assert "Ready to run" not in capsys.readouterr().out


def test_a_wrong_action_hides_no_other_problem(rules: Path) -> None:
    wrong = (
        "diagnosis.rules={dead_relu: {action: explode}, overfitt: {}}",
        "diagnosis.rules.plateau.action=stop_it",
    )
    digits = CHECKOUT / "configs" / "digits.yaml"
    with pytest.raises(UserError) as raised:
        check_all(stack="local", config=digits, data=None, overrides=wrong)
    told = "\n".join(raised.value.problems)
    assert "diagnosis.rules.dead_relu.action" in told
    assert "diagnosis.rules.plateau.action" in told
    assert "did you mean 'overfit'" in told
    assert len(raised.value.problems) == 3


def test_the_main_job_refuses_wrong_rules_before_it_starts(rules: Path) -> None:
    with pytest.raises(UserError) as raised:
        run_training(
            stack="local",
            config=CHECKOUT / "configs" / "digits.yaml",
            data=None,
            overrides=WRONG,
            summary=None,
            keep_endpoint=False,
            no_cache=False,
            faults=(),
        )
    assert all(text in "\n".join(raised.value.problems) for text in TOLD)


def test_wrong_rules_end_the_command_with_exit_code_2(rules: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(CHECKOUT / "run.py"),
            "--set",
            "diagnosis.rules.overfitt.enabled=false",
        ],
        cwd=rules,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "did you mean 'overfit'" in done.stderr
    assert done.stdout == ""


def test_a_diagnosis_that_is_off_needs_no_files() -> None:
    wrong = DiagnosisConfig(enabled=False, custom=(CustomRuleConfig(function="absent.py:mine"),))
    assert diagnosis_problems(wrong) == []
    assert moved_rule_problems(wrong, checkout=CHECKOUT) == []


def test_a_run_to_compare_with_has_to_be_there(tmp_path: Path) -> None:
    run = tmp_path / "a-run"
    config = similar(parameters={"other_trials": str(run)})
    assert len(diagnosis_problems(config)) == 1
    (run / "recording").mkdir(parents=True)
    (run / "recording" / "recording.json").write_text("{}")
    assert diagnosis_problems(config) == []
    found = other_run(config)
    assert found is not None
    assert found.root == run / "recording"
    assert other_run(similar(enabled=False, parameters={"other_trials": str(run)})) is None


def test_files_of_rules_go_along_to_sagemaker_from_the_checkout_alone(rules: Path) -> None:
    def problems(file: str, *, checkout: Path) -> list[str]:
        config = DiagnosisConfig(custom=(CustomRuleConfig(function=f"{file}:mine"),))
        return moved_rule_problems(config, checkout=checkout)

    assert problems("mine.py", checkout=rules) == []
    assert problems(str(rules / "mine.py"), checkout=rules)
    assert "does not come along" in problems("mine.py", checkout=rules / "elsewhere")[0]
