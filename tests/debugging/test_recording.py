"""What is recorded of a training, by either backend, and what becomes of it."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import small_trainings
from darkroom.base.errors import DarkroomError, UserError
from darkroom.config.debugging import Debugging, DiagnosisConfig, RecordingConfig, RuleConfig
from darkroom.data.dataset import Dataset
from darkroom.debugging.diagnosis import diagnose
from darkroom.debugging.recording.reader import read_evidence
from darkroom.debugging.smdebug_source import read_smdebug_tensors
from darkroom.telemetry.evidence import STATISTICS, Evidence
from darkroom.training import learner
from darkroom.training.learner import Learner
from darkroom.training.loop import TrainingResult, train
from quiet_smdebug import import_smdebug
from small_trainings import small_hyperparameters, write_dataset

pytestmark = pytest.mark.slow  # they train

BACKENDS = ("smdebug", "torch")
KINDS = ("weight", "bias", "gradient", "activation", "activation_input", "logits", "input")


def recording(**values: object) -> Debugging:
    defaults: dict[str, Any] = {"every_steps": 2, "first_steps": 1, "profiled_steps": 0}
    return Debugging(
        recording=RecordingConfig(**(defaults | values)), diagnosis=DiagnosisConfig(live=False)
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("images"))


def record(
    dataset: Dataset, *, home: Path, debugging: Debugging, **values: object
) -> TrainingResult:
    return train(
        dataset,
        hyperparameters=small_hyperparameters(**values),
        folder=home / "run",
        cache=home / "cache",
        debugging=debugging,
    )


def recorded(dataset: Dataset, *, home: Path, debugging: Debugging, **values: object) -> Evidence:
    record(dataset, home=home, debugging=debugging, **values)
    return read_evidence(home / "run" / "recording")


@pytest.fixture(scope="module")
def by_backend(
    dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Evidence]]:
    homes = {backend: tmp_path_factory.mktemp(backend) for backend in BACKENDS}
    return {
        backend: (home, recorded(dataset, home=home, debugging=recording(backend=backend)))
        for backend, home in homes.items()
    }


@pytest.fixture(params=BACKENDS)
def evidence(by_backend: dict[str, tuple[Path, Evidence]], request: pytest.FixtureRequest) -> Any:
    return by_backend[request.param][1]


def test_both_backends_record_the_same(by_backend: dict[str, tuple[Path, Evidence]]) -> None:
    one, other = (evidence for _, evidence in by_backend.values())
    for kind in KINDS:
        assert one.tensors.names(kind) == other.tensors.names(kind) != []
        for name in one.tensors.names(kind):
            for mode in ("train", "eval"):
                ours = one.tensors.statistics(name, kind=kind, mode=mode)
                theirs = other.tensors.statistics(name, kind=kind, mode=mode)
                assert ours.steps.tolist() == theirs.steps.tolist()
                assert ours.units.keys() == theirs.units.keys()
                for column in STATISTICS:
                    np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-6)
    np.testing.assert_array_equal(one.steps.loss, other.steps.loss)


def test_recording_changes_nothing_about_the_training(
    dataset: Dataset, tmp_path: Path, by_backend: dict[str, tuple[Path, Evidence]]
) -> None:
    silent = small_trainings.run_training(dataset, home=tmp_path)
    losses = [epoch.train_loss for epoch in silent.history]
    _, evidence = by_backend["smdebug"]
    assert [epoch.train_loss for epoch in evidence.epochs] == losses


def test_every_step_is_logged_with_its_phases(evidence: Evidence) -> None:
    assert evidence.steps.step.tolist() == list(range(9))  # 24 images by 8, three epochs
    assert evidence.steps.epoch.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert np.isfinite(evidence.steps.loss).all()
    assert (evidence.steps.gradient_norm > 0).all()
    assert evidence.steps.images.tolist() == [8] * 9
    for phase in ("data_wait", "transfer", "forward", "backward", "optimiser", "recording"):
        assert (evidence.steps.seconds[phase] > 0).all(), phase
    assert evidence.evaluations is not None
    assert (evidence.evaluations.seconds["evaluation"] > 0).all()
    assert (evidence.evaluations.seconds["checkpoint"] > 0).all()


def test_looks_are_taken_when_they_are_due(evidence: Evidence) -> None:
    statistics = evidence.tensors.statistics
    assert statistics("features.0.0.weight", kind="gradient").steps.tolist() == [0, 2, 4, 6, 8]
    assert statistics("logits", kind="logits", mode="eval").steps.tolist() == [0, 1, 2]
    assert statistics("features.0.2", kind="activation", mode="eval").steps.tolist() == [0, 1, 2]


def test_logits_and_labels_are_whole(evidence: Evidence) -> None:
    logits = evidence.tensors.value("logits", kind="logits", step=2)
    labels = evidence.tensors.value("labels", kind="labels", step=2)
    assert logits is not None
    assert labels is not None
    assert (logits.shape, labels.shape) == ((8, 3), (8,))
    assert evidence.tensors.value("features.0.0.weight", kind="weight", step=2) is None


def test_every_image_has_a_margin(evidence: Evidence, dataset: Dataset) -> None:
    assert evidence.margins is not None
    assert np.isfinite(evidence.margins.margin).all()
    assert list(evidence.margins.paths) == [record.path for record in dataset.split("train")]
    assert (evidence.margins.predicted != evidence.margins.label).all()


def test_the_facts_say_what_was_trained(evidence: Evidence) -> None:
    facts = evidence.facts
    assert facts.architecture == "mobilenet_v3_small"
    assert facts.class_counts == {"train": [8, 8, 8], "validation": [2, 2, 2]}
    assert all(facts.trainable.values())
    assert facts.trainable.keys() == facts.expected_trainable.keys()


def test_plain_smdebug_reads_the_trial(by_backend: dict[str, tuple[Path, Evidence]]) -> None:
    home, evidence = by_backend["smdebug"]
    import_smdebug()
    from smdebug import modes
    from smdebug.trials import create_trial

    trial = create_trial(str(home / "run" / "recording" / "tensors"))
    assert trial.steps(mode=modes.TRAIN) == [0, 2, 4, 6, 8]
    assert trial.steps(mode=modes.EVAL) == [0, 1, 2]
    gradients = trial.tensor_names(collection="gradients")
    assert len(gradients) == 142
    assert all(name.startswith("gradient/MobileNetV3_") for name in gradients)
    name = "gradient/MobileNetV3_features.0.0.weight"
    ours = evidence.tensors.statistics("features.0.0.weight", kind="gradient")
    theirs = trial.tensor(name).reduction_value(4, "mean", mode=modes.TRAIN, abs=True)
    assert theirs == pytest.approx(ours["abs_mean"][2])
    assert trial.tensor("CrossEntropyLoss_input_0").value(2, mode=modes.TRAIN).shape == (8, 3)
    assert len(trial.tensor_names(collection="weights")) == 88
    assert trial.tensor_names(collection="losses") == ["CrossEntropyLoss_output_0"]
    loss = trial.tensor("CrossEntropyLoss_output_0").value(0, mode=modes.TRAIN)
    assert float(loss) == evidence.steps.loss[0]


@pytest.mark.filterwarnings("ignore:tostring:DeprecationWarning")
def test_a_trial_of_smdebugs_own_hook_is_judged_too(tmp_path: Path) -> None:
    smd = import_smdebug()
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    every = smd.SaveConfig(save_interval=1)
    hook = smd.Hook(out_dir=str(tmp_path / "trial"), save_all=True, save_config=every)
    hook.register_module(network)
    loss = nn.CrossEntropyLoss()
    hook.register_loss(loss)
    hook.set_mode(smd.modes.TRAIN)
    for _ in range(3):
        loss(network(torch.randn(5, 4)), torch.zeros(5, dtype=torch.int64)).backward()
    hook.close()
    tensors = read_smdebug_tensors(tmp_path / "trial")
    assert {*tensors.names("gradient")} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert tensors.statistics("0.weight", kind="weight")["update_ratio"][1] == 0
    assert tensors.statistics("1", kind="activation").steps.tolist() == [0, 1, 2]
    assert tensors.statistics("1", kind="activation").units[0].shape == (3,)
    value = tensors.value("logits", kind="logits", step=1)
    assert value is not None
    assert value.shape == (5, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_frozen_layers_have_no_gradients(backend: str, dataset: Dataset, tmp_path: Path) -> None:
    evidence = recorded(
        dataset, home=tmp_path, debugging=recording(backend=backend), fine_tune="head"
    )
    assert evidence.tensors.names("gradient") == ["classifier.3.weight", "classifier.3.bias"]
    assert len(evidence.tensors.names("weight")) == 88
    assert sum(evidence.facts.expected_trainable.values()) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_tensors_are_kept_if_wanted(backend: str, dataset: Dataset, tmp_path: Path) -> None:
    wanted = recording(backend=backend, tensors="full")
    evidence = recorded(dataset, home=tmp_path, debugging=wanted, epochs=1, warmup_epochs=0)
    weight = evidence.tensors.value("features.0.0.weight", kind="weight", step=0)
    assert weight is not None
    assert weight.shape == (16, 3, 3, 3)
    found = evidence.tensors.statistics("features.0.0.weight", kind="weight")
    assert found["mean"][0] == pytest.approx(weight.mean(), rel=1e-3)


@pytest.mark.parametrize("architecture", ["resnet18", "efficientnet_b0", "densenet121", "vit_b_16"])
def test_activations_of_other_families_are_seen(
    architecture: str, dataset: Dataset, tmp_path: Path
) -> None:
    evidence = recorded(
        dataset,
        home=tmp_path,
        debugging=recording(backend="torch"),
        architecture=architecture,
        image_size=32,
        epochs=1,
        warmup_epochs=0,
    )
    assert len(evidence.tensors.names("activation")) >= 9
    assert np.isfinite(evidence.steps.loss).all()


def in_a_process(code: str, *, dataset: Dataset, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python code, whose arguments are the data set's folder and a home."""
    command = [sys.executable, "-c", code, str(dataset.root), str(home)]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **paths}
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_training_leaves_a_readable_recording_and_goes_on_in_it(
    backend: str, dataset: Dataset, tmp_path: Path
) -> None:
    # Of its units of progress 30 are images decoded; the seventh step is in the third epoch.
    code = (
        "import sys, pathlib, small_trainings as s; from darkroom.training.loop import train; "
        "import test_recording as t; "
        "train(s.read_dataset(pathlib.Path(sys.argv[1])), "
        "hyperparameters=s.small_hyperparameters(), folder=pathlib.Path(sys.argv[2]) / 'run', "
        "cache=pathlib.Path(sys.argv[2]) / 'cache', progress=s.KillingProgress(36), "
        f"debugging=t.recording(backend={backend!r}))"
    )
    done = in_a_process(code, dataset=dataset, home=tmp_path)
    assert done.returncode == -9, done.stderr
    killed = read_evidence(tmp_path / "run" / "recording")
    assert killed.steps.step.tolist() == list(range(7))
    assert killed.tensors.statistics("logits", kind="logits").steps.tolist() == [0, 2, 4, 6]
    assert len(killed.epochs) == 2

    whole = recorded(dataset, home=tmp_path, debugging=recording(backend=backend))
    assert whole.steps.step.tolist() == list(range(9))
    assert whole.tensors.statistics("logits", kind="logits").steps.tolist() == [0, 2, 4, 6, 8]
    assert [epoch.epoch for epoch in whole.epochs] == [1, 2, 3]
    assert (whole.steps.loss[:6] == killed.steps.loss[:6]).all()


@pytest.mark.parametrize(("owner", "part"), [(learner, "batch_loss"), (Learner, "_update")])
def test_a_step_that_was_interrupted_is_not_recorded(
    owner: Any, part: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, whole = [], getattr(owner, part)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(part)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(owner, part, interrupted)
    with pytest.raises(KeyboardInterrupt):
        recorded(dataset, home=tmp_path, debugging=recording())
    evidence = read_evidence(tmp_path / "run" / "recording")
    assert evidence.steps.step.tolist() == [0, 1]
    assert np.isfinite(evidence.steps.loss).all()
    assert evidence.tensors.statistics("logits", kind="logits").steps.tolist() == [0]


def test_what_another_training_has_recorded_is_not_taken_for_that_of_an_unrecorded_one(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "_update", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            recorded(dataset, home=tmp_path, debugging=recording())
    assert (tmp_path / "run" / "recording").exists()
    train(
        dataset,
        hyperparameters=small_hyperparameters(),
        folder=tmp_path / "run",
        cache=tmp_path / "cache",
    )
    assert not (tmp_path / "run" / "recording").exists()


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("backend", "written"), [("smdebug", "tfevents"), ("auto", "parquet")])
def test_where_smdebug_is_missing_a_trial_is_written_if_it_is_asked_for_by_name(
    backend: str, written: str, dataset: Dataset, tmp_path: Path
) -> None:
    code = (
        "import sys, pathlib; sys.modules['smdebug'] = None; "
        "import small_trainings as s; import test_recording as t; "
        "t.recorded(s.read_dataset(pathlib.Path(sys.argv[1])), home=pathlib.Path(sys.argv[2]), "
        f"debugging=t.recording(backend={backend!r}), epochs=1, warmup_epochs=0)"
    )
    done = in_a_process(code, dataset=dataset, home=tmp_path)
    assert done.returncode == 0, done.stderr
    tensors = tmp_path / "run" / "recording" / "tensors"
    assert {path.suffix for path in tensors.rglob("*.*")} >= {f".{written}"}


def test_a_loss_that_is_no_number_is_traced_to_where_it_began(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = small_trainings.train.__globals__["build_model"]

    def broken(*arguments: Any, **options: Any) -> nn.Module:
        model = build(*arguments, **options)
        with torch.no_grad():
            model.get_parameter("features.4.block.0.0.weight")[0] = torch.nan
        return model

    monkeypatch.setattr("darkroom.training.loop.build_model", broken)
    with pytest.raises(DarkroomError, match="not finite"):
        record(dataset, home=tmp_path, debugging=recording(backend="torch", every_steps=100))
    evidence = read_evidence(tmp_path / "run" / "recording")
    names = evidence.tensors.names("activation")
    broken_names = [
        name
        for name in names
        if evidence.tensors.statistics(name, kind="activation")["nan_share"][-1] > 0
    ]
    assert broken_names[0].startswith("features.4.")
    assert names.index(broken_names[0]) > 0
    assert np.isnan(evidence.steps.loss[-1])


def live(action: str, **parameters: float) -> Debugging:
    """Every loss is called too large."""
    rule = RuleConfig(action=action, parameters=parameters)  # type: ignore[arg-type]
    return Debugging(
        recording=RecordingConfig(backend="torch", every_steps=1, profiled_steps=0),
        diagnosis=DiagnosisConfig(rules={"class_missing": rule}),
    )


@pytest.fixture
def lopsided(tmp_path: Path) -> Dataset:
    """A data set in which a class has no training images."""
    whole = write_dataset(tmp_path / "images")
    red = [r.path for r in whole.split("train") if r.label == "red"]
    return whole.without(red, reason="test")


def test_a_rule_stops_a_training_and_its_best_epoch_is_kept(
    lopsided: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.debugging.recording.live._MIN_SECONDS", 1e9)  # only after epochs
    result = record(lopsided, home=tmp_path, debugging=live("stop"))
    assert len(result.history) == 1
    assert result.stopped_early
    assert result.stopped_by is not None
    assert result.stopped_by.rule == "class_missing"
    recording = tmp_path / "run" / "recording"
    assert diagnose(recording, config=DiagnosisConfig()).diagnosis.stopped_by == "class_missing"


def test_a_rule_that_strikes_after_the_last_epoch_has_nothing_to_stop(
    lopsided: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.debugging.recording.live._MIN_SECONDS", 1e9)  # only after epochs
    result = record(lopsided, home=tmp_path, debugging=live("stop"), epochs=1)
    assert result.stopped_by is None
    assert not (tmp_path / "run" / "recording" / "ended_by.json").exists()
    with pytest.raises(DarkroomError, match="ended by a rule"):
        record(lopsided, home=tmp_path / "other", debugging=live("fail"), epochs=1)


def test_a_rule_that_strikes_before_an_epoch_has_ended_fails_the_training(
    lopsided: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.debugging.recording.live._MIN_SECONDS", 0)
    with pytest.raises(DarkroomError, match=r"ended by a rule: .*class_missing"):
        record(lopsided, home=tmp_path, debugging=live("stop"))
    with pytest.raises(DarkroomError, match="ended by a rule"):
        record(lopsided, home=tmp_path / "other", debugging=live("fail"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rule_that_ended_a_training_ends_it_again_when_it_goes_on(
    backend: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.debugging.recording.live._MIN_SECONDS", 1e9)  # only after epochs
    rule = RuleConfig(action="fail", parameters={"rise_alone": 0.1})
    strict = Debugging(
        recording=RecordingConfig(backend=backend, every_steps=1, profiled_steps=0),
        diagnosis=DiagnosisConfig(rules={"learning_rate_too_high": rule}),
    )
    told = []
    for _ in range(2):
        with pytest.raises(DarkroomError, match="ended by a rule") as failed:
            record(dataset, home=tmp_path, debugging=strict)
        told.append(str(failed.value))
    evidence = read_evidence(tmp_path / "run" / "recording")
    assert evidence.steps.step[0] == 0
    assert "learning_rate_too_high" in told[1]


def test_what_rules_find_is_told_once_while_the_training_runs(
    lopsided: Dataset, tmp_path: Path
) -> None:
    told = []
    train(
        lopsided,
        hyperparameters=small_hyperparameters(),
        folder=tmp_path / "run",
        cache=tmp_path / "cache",
        debugging=live("warn"),
        on_finding=told.append,
    )
    assert [finding.rule for finding in told].count("class_missing") == 1


def test_a_training_that_stands_still_is_told_of_while_it_does(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darkroom.training import loop as epochs

    told, batch, calls, waits = threading.Event(), epochs.training_batch, [0], []

    def hanging(*positional: object, **named: object) -> object:
        calls[0] += 1
        if calls[0] == 3:
            waits.append(told.wait(20))
        return batch(*positional, **named)

    monkeypatch.setattr(epochs, "training_batch", hanging)
    rule = RuleConfig(parameters={"threshold": 1.0})
    train(
        dataset,
        hyperparameters=small_hyperparameters(epochs=1, warmup_epochs=0),
        folder=tmp_path / "run",
        cache=tmp_path / "cache",
        debugging=Debugging(diagnosis=DiagnosisConfig(rules={"stalled_training": rule})),
        on_finding=lambda finding: finding.rule == "stalled_training" and told.set(),
    )
    assert waits == [True]


def test_an_unknown_rule_is_the_users_mistake_before_the_first_step(
    dataset: Dataset, tmp_path: Path
) -> None:
    wrong = Debugging(diagnosis=DiagnosisConfig(rules={"vanishing": RuleConfig()}))
    with pytest.raises(UserError, match="did you mean 'vanishing_gradient'"):
        record(dataset, home=tmp_path, debugging=wrong)


def test_nothing_is_recorded_where_nothing_is_wanted(dataset: Dataset, tmp_path: Path) -> None:
    off = Debugging(recording=RecordingConfig(backend="off"))
    record(dataset, home=tmp_path, debugging=off, epochs=1, warmup_epochs=0)
    assert not (tmp_path / "run" / "recording").exists()


def test_a_folder_without_a_recording_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no recording"):
        read_evidence(tmp_path)
