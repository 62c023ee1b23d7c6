"""A diagnosis: one finding a rule, causes first, what the configuration changes, custom rules."""

import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest

from checkout import CHECKOUT
from darkroom.base.errors import UserError
from darkroom.config.debugging import CustomRuleConfig, DiagnosisConfig, RuleConfig
from darkroom.debugging.rules import runner
from darkroom.debugging.rules.catalogue import RULES, TRAINING_RULES
from darkroom.debugging.rules.rule import Rule
from darkroom.debugging.rules.runner import EXPLAINS, ConfiguredRule, check_rules, judge
from darkroom.telemetry.evidence import Evidence
from darkroom.telemetry.findings import Diagnosis, Hit
from made_evidence import CHANCE, STEPS, WEIGHTS, healthy, made_facts, made_steps, made_tensors


def zero_weights() -> Evidence:
    """Nothing learns: weights and gradients are zero, and the loss stays."""
    none = {(kind, name): lambda s, a: a * 0 for kind in ("weight", "gradient") for name in WEIGHTS}
    return healthy(
        tensors=made_tensors(replaced=none), steps=made_steps(np.full(STEPS, CHANCE)), epochs=()
    )


def named(diagnosis: Diagnosis) -> dict:
    return {finding.rule: finding for finding in diagnosis.findings}


def outcome(diagnosis: Diagnosis, rule: str) -> object:
    return next(one for one in diagnosis.rules if one.rule == rule)


def test_a_healthy_training_has_no_findings_and_an_outcome_of_every_rule() -> None:
    diagnosis = judge(healthy(), config=DiagnosisConfig())
    assert diagnosis.findings == ()
    assert [one.rule for one in diagnosis.rules] == list(RULES)
    assert [one.reason for one in diagnosis.rules if one.outcome == "failed"] == []
    assert outcome(diagnosis, "tensor_variance").reason != ""


def test_a_rule_that_is_met_in_three_places_makes_one_finding() -> None:
    finding = named(judge(zero_weights(), config=DiagnosisConfig()))["all_zero"]
    assert (finding.occurrences, finding.where, finding.epoch) == (3, "conv1.weight", 1)


def test_causes_come_first_and_what_follows_says_so() -> None:
    findings = judge(zero_weights(), config=DiagnosisConfig()).findings
    assert findings[0].rule == "all_zero"
    assert findings[0].follows_from == ""
    follows = {finding.rule: finding.follows_from for finding in findings[1:]}
    assert follows["vanishing_gradient"] == follows["loss_not_decreasing"] == "all_zero"
    assert findings[-1].meaning.startswith("Probably follows from 'Weights are all zero'")


def test_a_note_explains_nothing() -> None:
    rules = {
        "all_zero": RuleConfig(severity="note"),
        "layer_not_learning": RuleConfig(enabled=False),
    }
    found = named(judge(zero_weights(), config=DiagnosisConfig(rules=rules)))
    assert found["vanishing_gradient"].follows_from == ""
    assert found["all_zero"].action == "note"


def test_what_explains_what_names_rules_that_exist() -> None:
    assert set(EXPLAINS) <= set(RULES)
    assert {rule for follows in EXPLAINS.values() for rule in follows} <= set(RULES)
    assert [cause for cause, follows in EXPLAINS.items() if cause in follows] == []


def test_by_default_nothing_ends_a_training() -> None:
    diagnosis = judge(zero_weights(), config=DiagnosisConfig(), live=True)
    assert {finding.action for finding in diagnosis.findings} <= {"note", "warn"}
    assert diagnosis.stopped_by == ""


def test_a_rule_whose_action_is_stop_ends_a_running_training_alone() -> None:
    config = DiagnosisConfig(rules={"all_zero": RuleConfig(action="stop")})
    assert judge(zero_weights(), config=config, live=True).stopped_by == "all_zero"
    assert judge(zero_weights(), config=config).stopped_by == ""
    fails = DiagnosisConfig(
        rules={
            "all_zero": RuleConfig(action="stop"),
            "vanishing_gradient": RuleConfig(action="fail"),
        }
    )
    assert judge(zero_weights(), config=fails, live=True).stopped_by == "vanishing_gradient"


def test_rules_that_need_the_end_wait_for_it() -> None:
    diagnosis = judge(zero_weights(), config=DiagnosisConfig(), live=True)
    waiting = outcome(diagnosis, "loss_not_decreasing")
    assert (waiting.outcome, waiting.reason) == (
        "not_applicable",
        "judged when the training has ended",
    )


def test_a_rule_can_be_switched_off_and_its_parameters_changed() -> None:
    rules = {
        "all_zero": RuleConfig(enabled=False),
        "leakage": RuleConfig(parameters={"minimum_share": 0.5}),
    }
    evidence = healthy(facts=made_facts(shared_count=18))
    diagnosis = judge(evidence, config=DiagnosisConfig(rules=rules))
    assert outcome(diagnosis, "all_zero").outcome == "switched_off"
    assert named(diagnosis)["leakage"].severity == "note"
    assert outcome(diagnosis, "leakage").parameters == {"minimum_share": 0.5}


def test_the_severest_place_decides_unless_the_configuration_does() -> None:
    counts = {"train": (300, 0, 300), "validation": (60, 60, 0)}
    evidence = healthy(facts=made_facts(class_counts=counts))
    assert named(judge(evidence, config=DiagnosisConfig()))["class_missing"].severity == "error"
    rules = {"class_missing": RuleConfig(severity="note")}
    mild = judge(evidence, config=DiagnosisConfig(rules=rules))
    assert named(mild)["class_missing"].severity == "note"


def test_advice_names_settings_with_the_values_of_the_run() -> None:
    losses = np.full(STEPS, 30.0)
    losses[:5] = CHANCE
    facts = made_facts(hyperparameters={"learning_rate": 1.0})
    evidence = healthy(facts=facts, steps=made_steps(losses, peak=1.0))
    advice = named(judge(evidence, config=DiagnosisConfig()))["learning_rate_too_high"].advice
    assert advice[0] == "lower training.learning_rate from 1 to about 0.001"


def test_one_learning_rate_is_advised_not_one_by_each_finding() -> None:
    losses = np.full(STEPS, 30.0)
    losses[:5] = CHANCE
    losses[60:] = 300.0
    facts = made_facts(hyperparameters={"learning_rate": 1.0})
    evidence = healthy(facts=facts, steps=made_steps(losses, peak=1.0))
    found = named(judge(evidence, config=DiagnosisConfig()))
    spike = found["loss_spike"]
    assert spike.follows_from == "learning_rate_too_high"
    assert spike.advice[0] == "first see to learning_rate_too_high"
    assert not [one for one in spike.advice if "training.learning_rate" in one]


def test_what_is_done_already_is_not_advised() -> None:
    hit = Hit("hat", None, {})
    for imbalance, advised in (("none", True), ("class_weights", False)):
        facts = made_facts(hyperparameters={"imbalance": imbalance})
        advice = RULES["class_imbalance"].advice(hit, healthy(facts=facts))
        assert ("weigh the classes" in advice[0]) == advised


@pytest.mark.parametrize("error", [ZeroDivisionError("by nought"), SystemExit("by nought")])
def test_a_rule_that_raises_fails_by_itself(error: BaseException) -> None:
    def broken(evidence: Evidence) -> list[Hit]:
        raise error

    rule = Rule("mine", "T", "note", "M", lambda hit, evidence: (), broken)
    diagnosis = runner.judge_by(healthy(), rules=[ConfiguredRule(rule, RuleConfig())])
    assert diagnosis.rules[0].outcome == "failed"
    assert diagnosis.rules[0].reason == f"{type(error).__name__}: by nought"


def test_figures_that_are_not_finite_survive_json() -> None:
    rule = Rule(
        *("mine", "T", "note", "M", lambda hit, evidence: ()),
        lambda evidence: [Hit("", None, {"ratio": float("inf"), "count": np.float64(2)})],
    )
    diagnosis = runner.judge_by(healthy(), rules=[ConfiguredRule(rule, RuleConfig())])
    assert diagnosis.findings[0].evidence == {"ratio": "inf", "count": 2.0}
    assert Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis


def test_every_problem_of_a_configuration_is_reported_at_once() -> None:
    config = DiagnosisConfig(
        rules={
            "vanishing_gradeint": RuleConfig(),
            "vanishing_gradient": RuleConfig(parameters={"threshhold": 1, "threshold": "small"}),
            "overfit": RuleConfig(parameters={"patience": 1.5}),
            "dead_relu": RuleConfig(parameters={"tensor_regex": "("}),
        },
        custom=(CustomRuleConfig(function="nowhere.py:mine"),),
    )
    with pytest.raises(UserError) as caught:
        check_rules(config)
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 6
    assert "unknown rule 'vanishing_gradeint'; did you mean 'vanishing_gradient'?" in problems
    assert "unknown parameter 'threshhold'; vanishing_gradient has biases, persistence" in problems
    assert (
        "diagnosis.rules.vanishing_gradient.parameters.threshold must be a number, not 'small'; "
        "its default is 1e-07"
    ) in problems
    assert "overfit.parameters.patience must be a whole number, not 1.5" in problems
    assert "'(' is no regular expression" in problems
    assert "there is no file 'nowhere.py'" in problems


def test_whole_numbers_and_null_suit_where_they_are_meant() -> None:
    rules = {
        "overfit": RuleConfig(parameters={"ratio_threshold": 1}),
        "tensor_variance": RuleConfig(parameters={"max_threshold": None, "min_threshold": 1}),
    }
    check_rules(DiagnosisConfig(rules=rules))
    with pytest.raises(UserError, match="must be true or false, not 1"):
        check_rules(
            DiagnosisConfig(rules={"exploding_tensor": RuleConfig(parameters={"only_nan": 1})})
        )


CUSTOM = '''
from darkroom.telemetry.findings import Hit

def steep(evidence, *, threshold=3.0):
    """The loss is steep.

    More than
    you like."""
    worst = float(evidence.steps.loss.max())
    return [Hit("", 1, {"loss": worst})] if worst > threshold else []

def raising(evidence):
    return 1 / 0

def wrong(evidence):
    return ["no hit"]

def positional(evidence, threshold):
    return []

def overfit(evidence):
    return []
'''


@pytest.fixture
def rules_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(CUSTOM)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine.py"


def custom(function: str, **changes: object) -> DiagnosisConfig:
    return DiagnosisConfig(custom=(CustomRuleConfig(function=function, **changes),))


@pytest.mark.usefixtures("rules_file")
def test_a_rule_of_the_users_is_judged_like_any_other() -> None:
    assert "steep" not in named(judge(healthy(), config=custom("mine.py:steep")))
    config = custom("mine.py:steep", parameters={"threshold": 0.5}, severity="error", action="fail")
    diagnosis = judge(healthy(), config=config, live=True)
    finding = named(diagnosis)["steep"]
    assert (finding.title, finding.meaning) == ("The loss is steep", "More than you like.")
    assert diagnosis.stopped_by == "steep"


@pytest.mark.usefixtures("rules_file")
def test_errors_in_a_rule_of_the_users_are_outcomes() -> None:
    for name, reason in (("raising", "ZeroDivisionError"), ("wrong", "return a list of Hit")):
        failed = outcome(judge(healthy(), config=custom(f"mine.py:{name}")), name)
        assert failed.outcome == "failed"
        assert reason in failed.reason


@pytest.mark.usefixtures("rules_file")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("mine.py:missing", "has no function 'missing'; it has \\['steep', 'raising'"),
        ("mine.py:positional", "has parameters without \\* or a default: threshold"),
        ("mine.py:overfit", "there is a rule 'overfit' already; rename the function"),
    ],
)
def test_rules_of_the_users_that_cannot_be_are_refused(function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_rules(custom(function))


@pytest.mark.usefixtures("rules_file")
def test_unknown_parameters_of_a_rule_of_the_users_are_refused() -> None:
    with pytest.raises(UserError, match=r"'mine.py:steep'.parameters: unknown parameter 'limit'"):
        check_rules(custom("mine.py:steep", parameters={"limit": 1}))
    with pytest.raises(UserError, match="must be a number, not 'high'"):
        check_rules(custom("mine.py:steep", parameters={"threshold": "high"}))


def test_a_file_that_cannot_be_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module_at_all")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot be imported: ModuleNotFoundError"):
        check_rules(custom("broken.py:mine"))


def test_the_table_of_rules_is_the_one_that_the_code_gives() -> None:
    folder = CHECKOUT / "docs"
    spec = importlib.util.spec_from_file_location("rules_reference", folder / "rules_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (folder / "rules.md").read_text(encoding="utf-8")
    assert text == module.page(text), "run `python docs/rules_reference.py`"
    assert [name for name in RULES if f"| `{name}` |" not in text] == []


def test_every_parameter_of_a_rule_is_told_of_in_its_docstring() -> None:
    missing = [
        f"{rule.name}.{name}"
        for rule in TRAINING_RULES
        for name in rule.parameters
        if f"{name}:" not in (inspect.getdoc(rule.evaluate) or "")
    ]
    assert missing == []


def test_titles_are_short_and_rules_have_texts() -> None:
    for rule in RULES.values():
        assert len(rule.title) <= 80
        assert not rule.title.endswith(".")
        assert not rule.meaning or rule.meaning.endswith(".")
