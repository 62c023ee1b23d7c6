"""Our rules as smdebug's on a trial, and smdebug's as ours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from darkroom.base.errors import UserError
from darkroom.config.debugging import CustomRuleConfig, DiagnosisConfig
from darkroom.debugging.recording.smdebug_writer import SmdebugWriter
from darkroom.debugging.recording.snapshots import Captured, Look
from darkroom.debugging.rules.custom import smdebug_rule
from darkroom.debugging.rules.runner import check_rules, judge
from darkroom.debugging.smdebug_source import read_smdebug_tensors
from made_evidence import healthy
from quiet_smdebug import import_smdebug

import_smdebug()

from smdebug.exceptions import RuleEvaluationConditionMet
from smdebug.rules import invoke_rule
from smdebug.trials import create_trial


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """Steps 0 to 5, an evaluation after step 2; the gradient vanishes at step 4 of training."""
    folder = tmp_path / "trial"
    writer = SmdebugWriter(folder, root="Net", steps_per_epoch=3)
    for step in range(6):
        size = 1e-9 if step >= 4 else 1e-2
        arrays = {
            ("fc.weight", "weight"): np.ones((2, 2)),
            ("fc.weight", "gradient"): np.full((2, 2), size),
            ("loss", "loss"): np.array(1.0),
        }
        look = Look("train", step, full=True)
        look.tensors = [
            Captured(name, kind=kind, value=array) for (name, kind), array in arrays.items()
        ]
        writer.write(look)
        if step == 2:
            evaluation = Look("eval", 0, full=True)
            evaluation.tensors = [
                Captured("logits", kind="logits", value=np.eye(2)),
                Captured("labels", kind="labels", value=np.arange(2)),
            ]
            writer.write(evaluation)
    writer.close()
    return folder


def fired_at(rule: object, *, start: int = 0, end: int = 7) -> int | None:
    try:
        invoke_rule(rule, start_step=start, end_step=end, raise_eval_cond=True)
    except RuleEvaluationConditionMet as met:
        return met.step
    return None


def test_a_rule_of_ours_fires_at_the_step_of_the_trial(trial: Path) -> None:
    rule = smdebug_rule("vanishing_gradient")(create_trial(str(trial)))
    assert fired_at(rule) == 5  # counted over both modes: step 4 of training


def test_its_parameters_are_given_by_name(trial: Path) -> None:
    rule = smdebug_rule("vanishing_gradient")(create_trial(str(trial)), threshold=1e-10)
    assert fired_at(rule) is None
    with pytest.raises(UserError, match=r"has no parameters \['limit'\]"):
        smdebug_rule("vanishing_gradient")(create_trial(str(trial)), limit=1)


@pytest.mark.slow
def test_three_equal_weights_are_unchanged_and_two_are_not(trial: Path) -> None:
    rule = smdebug_rule("unchanged_tensor")
    chosen = {"collection_names": "weights"}
    assert fired_at(rule(create_trial(str(trial)), **chosen), end=2) is None
    assert fired_at(rule(create_trial(str(trial)), **chosen), end=3) == 2


def test_a_reader_of_trials_can_be_passed_in(trial: Path) -> None:
    asked = []

    def read(path: Path) -> object:
        asked.append(path)
        return read_smdebug_tensors(path)

    assert fired_at(smdebug_rule("vanishing_gradient", read=read)(create_trial(str(trial)))) == 5
    assert set(asked) == {trial}


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"there is no rule 'vanishing'; docs/rules\.md lists all \d+"
    ):
        smdebug_rule("vanishing")


FOREIGN = '''
from smdebug.rules import Rule

class TinyGradient(Rule):
    """A gradient is tiny."""

    def __init__(self, base_trial, action_str="", threshold=1e-5):
        super().__init__(base_trial, action_str=action_str)
        self.threshold = float(threshold)

    def invoke_at_step(self, step):
        for name in self.base_trial.tensor_names(collection="gradients", step=step):
            if abs(self.base_trial.tensor(name).value(step)).mean() < self.threshold:
                return True
        return False
'''


def test_a_class_of_smdebugs_is_a_rule_like_any_other(
    trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(FOREIGN)
    monkeypatch.chdir(tmp_path)
    custom = (CustomRuleConfig(function="theirs.py:TinyGradient"),)
    diagnosis = judge(replace(healthy(), trial=str(trial)), config=DiagnosisConfig(custom=custom))
    (finding,) = [one for one in diagnosis.findings if one.rule == "TinyGradient"]
    assert (finding.title, finding.step, finding.occurrences) == ("A gradient is tiny", 4, 2)
    without = judge(healthy(), config=DiagnosisConfig(custom=custom))
    assert "recording.backend: smdebug" in without.rules[-1].reason
    unknown = CustomRuleConfig(function="theirs.py:TinyGradient", parameters={"limit": 1})
    with pytest.raises(UserError, match="unknown parameter 'limit'; TinyGradient has threshold"):
        check_rules(DiagnosisConfig(custom=(unknown,)))
