"""Configurations from files and the command line, and the messages about bad ones."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.base.errors import UserError
from darkroom.config import Config
from darkroom.config.consistency import managed_problems
from darkroom.config.loader import config_digest, load_config, to_yaml
from darkroom.config.tuning import trials_wanted


@pytest.fixture
def load(tmp_path: Path):
    """Load a configuration from its text."""

    def load_text(text: str, **options: object) -> Config:
        file = tmp_path / "config.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, **options)

    return load_text


def problems_of(*overrides: str, path: Path | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides=overrides)
    return caught.value.problems


def test_no_file_means_all_defaults() -> None:
    assert load_config(None) == Config()


def test_an_empty_file_and_empty_sections_mean_defaults(load) -> None:
    assert load("") == Config()
    assert load("training:\n  # epochs: 3\nmodel:\n") == Config()


def test_values_of_a_file_are_typed(load) -> None:
    config = load("training: {learning_rate: 1e-3, epochs: 1e1, mixed_precision: off}")

    assert config.training.learning_rate == 1e-3
    assert config.training.epochs == 10
    assert config.training.mixed_precision == "off"


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("training.learning_rate=1e-3", lambda config: config.training.learning_rate == 1e-3),
        ("training.learning_rate=2.5E-4", lambda config: config.training.learning_rate == 2.5e-4),
        ("training.epochs=3", lambda config: config.training.epochs == 3),
        ("tuning.enabled=false", lambda config: config.tuning.enabled is False),
        (
            "tuning.search_space.batch_size=null",
            lambda config: config.tuning.search_space.batch_size is None,
        ),
        (
            "tuning.search_space.batch_size.choices=[8, 16]",
            lambda config: config.tuning.search_space.batch_size.choices == (8, 16),
        ),
        (
            "tuning.search_space.learning_rate.choices=[1e-3, 3.3e-4, 1]",
            lambda config: config.tuning.search_space.learning_rate.choices == (0.001, 0.00033, 1),
        ),
        (
            "tuning.search_space.weight_decay={choices: [0, .01]}",
            lambda config: config.tuning.search_space.weight_decay.choices == (0.0, 0.01),
        ),
        (
            "tuning.search_space.epochs.choices=[2, 5]",
            lambda config: config.tuning.search_space.epochs.choices == (2, 5),
        ),
        (
            "tuning.search_space.epochs={low: 1, high: 2}",
            lambda config: config.tuning.search_space.epochs.high == 2,
        ),
        (
            "data.source=s3://bucket/prefix",
            lambda config: config.data.source == "s3://bucket/prefix",
        ),
        ("tracking.tags.note=a=b", lambda config: config.tracking.tags == {"note": "a=b"}),
        ("tracking.tags={a: b}", lambda config: config.tracking.tags == {"a": "b"}),
    ],
)
def test_an_override_is_read_as_yaml(override: str, read) -> None:
    assert read(load_config(None, overrides=[override]))


def test_an_override_changes_one_value_of_a_default_range() -> None:
    space = load_config(None, overrides=["tuning.search_space.epochs.high=5"]).tuning.search_space

    assert space.epochs == Config().tuning.search_space.epochs.model_copy(update={"high": 5})


def test_choices_take_the_place_of_a_range_and_a_range_that_of_choices(load) -> None:
    text = "tuning: {search_space: {weight_decay: {choices: [0.1]}}}"
    overrides = ["learning_rate.choices=[0.1]", "weight_decay.low=0", "weight_decay.high=1"]
    config = load(text, overrides=[f"tuning.search_space.{one}" for one in overrides])
    space = config.tuning.search_space.model_dump()
    assert space["learning_rate"] == {"choices": (0.1,)}
    assert space["weight_decay"] == {"low": 0, "high": 1, "log": False}
    assert load(to_yaml(config)) == config


def test_an_override_keeps_the_other_values_of_the_file(load) -> None:
    config = load("training: {epochs: 3, batch_size: 8}", overrides=["training.epochs=4"])

    assert (config.training.epochs, config.training.batch_size) == (4, 8)


def test_the_last_override_wins_and_data_wins_over_all() -> None:
    config = load_config(
        None,
        overrides=["training.epochs=2", "training.epochs=4", "data.source=a"],
        data="folder: with [odd] #name",
    )

    assert config.training.epochs == 4
    assert config.data.source == "folder: with [odd] #name"


@settings(deadline=None)
@given(st.floats(min_value=1e-12, max_value=10, exclude_min=True))
def test_any_learning_rate_survives_the_command_line(value: float) -> None:
    config = load_config(None, overrides=[f"training.learning_rate={value!r}"])

    assert config.training.learning_rate == value


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=20)))
def test_a_configuration_survives_its_own_yaml(tmp_path_factory, tags: dict[str, str]) -> None:
    config = Config.model_validate({"tracking": {"tags": tags}})
    file = tmp_path_factory.mktemp("round-trip") / "config.yaml"
    file.write_bytes(to_yaml(config).encode())

    assert load_config(file) == config


@pytest.mark.parametrize(
    "text", ["off", "1e3", "1", "null", "true", "2020-01-01", "0x1", "1:30", ""]
)
def test_text_that_looks_like_something_else_survives_its_own_yaml(text: str, load) -> None:
    config = Config.model_validate({"tracking": {"tags": {"key": text}}})

    assert load(to_yaml(config)) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.learning_rate=abc",
            "training.learning_rate: 'abc' is not a number; allowed: greater than 0, at most 10",
        ),
        ("training.epochs=0", "training.epochs: 0 is out of range; allowed: greater than 0"),
        ("training.batch_size=true", "training.batch_size: true is not a whole number"),
        ("training.batch_size='8'", "training.batch_size: '8' is not a whole number"),
        ("training.seed=1.5", "training.seed: 1.5 is not a whole number"),
        ("training.momentum=.nan", "training.momentum: nan is out of range"),
        ("training.epoch=3", "training.epoch: unknown key; did you mean 'epochs'?"),
        ("epochs=3", "epochs: unknown key; did you mean training.epochs?"),
        ("model.learning_rat=1", "unknown key; did you mean training.learning_rate?"),
        ("trainin.epochs=3", "trainin: unknown key; did you mean 'training'?"),
        ("zzz=3", "zzz: unknown key; allowed here: data, model, training, tuning"),
        ("model.architecture=resnet19", "did you mean 'resnet18'?"),
        ("model.architecture=ResNet-50", "did you mean 'resnet50'?"),
        ("model.architecture=qqq", "allowed: any of 80, such as resnet18"),
        ("training.optimizer=adam", "did you mean 'adamw'? allowed: 'adamw', 'sgd'"),
        ("training.optimizer=3", "training.optimizer: 3 is not one of the choices"),
        ("training.imbalance=~", "training.imbalance: null is not one of the choices"),
        ("tuning.enabled=maybe", "tuning.enabled: 'maybe' is not true or false"),
        ("tuning.search_space.epochs.high=0", "need 1 <= low <= high, not low 3, high 0"),
        ("tuning.search_space.epochs={low: 1}", "tuning.search_space.epochs.high: missing"),
        ("tuning.search_space.batch_size=[1]", "is not a mapping (keys: choices) or null"),
        ("tuning.search_space.batch_size.choices=[]", "allowed: at least 1 item"),
        ("tuning.search_space.batch_size.choices=[0]", "choices.0: 0 is out of range; allowed: gr"),
        ("tuning.search_space.batch_size.choices=[8, 4, 8]", "has 8 more than once; give each"),
        ("tuning.search_space.learning_rate.choices=[]", "[] is not allowed; allowed: at least 1"),
        ("tuning.search_space.learning_rate.choices=[.1, 1e-1]", "has 0.1 more than once"),
        ("tuning.search_space.learning_rate.choices=['1e-3']", "without quotes it is a number"),
        ("training.seed=1_000", "without underscores it is a number"),
        ("tuning.search_space.learning_rate.choices=[.1, x]", "choices.1: 'x' is not a number"),
        ("tuning.search_space.learning_rate.choices=[true]", "choices.0: true is not a number"),
        ("tuning.search_space.learning_rate.choices=1e-3", "choices: 0.001 is not a list whose"),
        ("tuning.search_space.learning_rate.choices=[.1, 0]", "choices: 0.0 is out of range; allo"),
        ("tuning.search_space.learning_rate.choices=[-1]", "-1.0 is out of range; allowed: greate"),
        ("tuning.search_space.weight_decay.choices=[0, 11]", "11.0 is out of range; allowed: at l"),
        ("tuning.search_space.learning_rate=[.1]", "to choose from are {choices: [0.1]}"),
        ("tuning.search_space.epochs.choices=[2.5]", "choices.0: 2.5 is not a whole number"),
        ("tuning.search_space.epochs.chioces=[2]", "unknown key; did you mean 'choices'?"),
        (
            "tuning.search_space.learning_rate={low: 1e-3, high: 1, choices: [1e-3]}",
            "has choices and low, high; give either choices, or low and high (and log)",
        ),
        (
            "tracking.model_name=a b",
            "tracking.model_name: 'a b' is not allowed; allowed: text that",
        ),
        ("tracking.tags.a=1", 'tracking.tags.a: 1 is not text; in quotes it is one: "1"'),
        ("data.splits={train: 2019}", 'each text; in quotes it is one: "2019"'),
        ("model.weights='\"x\"'", "begins with a quotation mark: leave it out"),
        ("data.validation_fraction=0.9", "validation_fraction (0.9) + test_fraction (0.5) must be"),
        ("model.resize_size=16", "resize_size (16) must be 0 or at least image_size (224)"),
        ("evaluation=[1]", "evaluation: [1] is not a mapping"),
    ],
)
def test_a_bad_value_is_shown_with_what_is_allowed(override: str, message: str) -> None:
    if override.startswith("data.validation"):
        problems = problems_of(override, "data.test_fraction=0.5")
    else:
        problems = problems_of(override)

    assert len(problems) == 1
    assert message in problems[0]
    assert "\n" not in problems[0]


def test_an_unknown_architecture_is_answered_without_the_list_of_all() -> None:
    assert len(problems_of("model.architecture=resnet19")[0]) < 150
    assert len(problems_of("model.architecture=qqq")[0]) < 250


def test_all_problems_come_in_one_error(load) -> None:
    text = "training: {learning_rate: abc, epoch: 3}\nmodel: {architecture: resnet19}\nx: 1\n"
    with pytest.raises(UserError) as caught:
        load(text, overrides=["foo", "training.epochs.deep=1"])

    assert len(caught.value.problems) == 6
    assert str(caught.value).count("\n") == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("foo", "--set 'foo': not of the form key.path=value"),
        ("=3", "not of the form key.path=value"),
        ("training..epochs=3", "not of the form key.path=value"),
        ("training.epochs=[1,", "--set 'training.epochs=[1,': not valid YAML: line 1, column 4"),
        ("data.source.a=1", "--set 'data.source.a=1': data.source is 'digits', which has no keys"),
    ],
)
def test_a_malformed_override_is_named(override: str, message: str) -> None:
    assert message in problems_of("data.source=digits", override)[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.weights=imagnet"], "'imagnet' is neither 'imagenet', 'none'"),
        (["model.weights=missing.safetensors"], "'missing.safetensors': no such file or folder"),
        (["model.weights=missing/model.tar.gz"], "'missing/model.tar.gz': no such file or folder"),
        (
            ["tuning.search_space.weight_decay.high=20"],
            "tuning.search_space.weight_decay.high: 20.0 is out of range; "
            "allowed: at least 0, at most 10",
        ),
        (
            [
                f"tuning.search_space.{name}=null"
                for name in ("learning_rate", "batch_size", "weight_decay", "epochs")
            ],
            "nothing to search",
        ),
        (["training.processes=17"], "tuning.search_space.batch_size.choices: 16 is less than"),
        (
            ["training.processes=33", "tuning.enabled=false"],
            "training.batch_size: 32 is less than training.processes (33)",
        ),
        (["deployment.gate_threshold=97"], "accuracy is at most 1"),
        (["deployment.gate_metric=log_loss", "deployment.gate_threshold=0"], "is above 0 for ever"),
        (
            ["tuning.strategy=hyperband"],
            "tuning.search_space.epochs: must be null for the strategy 'hyperband'",
        ),
        (
            [
                "tuning.strategy=grid",
                "tuning.search_space.learning_rate=null",
                "tuning.search_space.weight_decay=null",
                "tuning.trials=7",
            ],
            "tuning.trials: 7, but a grid tries all of its 24 combinations",
        ),
        (
            [
                "tuning.strategy=grid",
                "tuning.search_space.learning_rate=null",
                "tuning.search_space.weight_decay=null",
                "tuning.search_space.epochs.high=20000000000000000000002",
            ],
            "batch_size 3 × epochs 20000000000000000000000 are 60000000000000000000000 "
            "combinations, of which in a grid at most 10000 are allowed; give fewer values",
        ),
    ],
)
def test_values_that_cannot_work_together_are_refused(overrides: list[str], message: str) -> None:
    problems = problems_of(*overrides)

    assert len(problems) == 1
    assert message in problems[0]


def test_every_continuous_dimension_of_a_grid_is_named_with_what_to_write() -> None:
    problems = problems_of("tuning.strategy=grid")
    offered = [shlex.split(problem)[problem.split().index("--set") + 1] for problem in problems]
    config = load_config(None, overrides=["tuning.strategy=grid", *(o.strip(",") for o in offered)])
    assert trials_wanted(config.tuning) == 2 * 2 * 24
    assert [problem.partition(":")[0] for problem in problems] == [
        "tuning.search_space.learning_rate",
        "tuning.search_space.weight_decay",
    ]


@pytest.mark.parametrize("strategy", ["tpe", "random", "hyperband"])
def test_choices_of_fractions_suit_every_strategy(strategy: str) -> None:
    epochs = "null" if strategy == "hyperband" else "{choices: [2, 4]}"
    space = ["learning_rate.choices=[0.1, 0.2]", f"epochs={epochs}"]
    config = load_config(
        None,
        overrides=[f"tuning.strategy={strategy}", *(f"tuning.search_space.{o}" for o in space)],
    )
    assert managed_problems(config) == []
    assert trials_wanted(config.tuning) == 4


def test_a_grid_of_choices_is_accepted() -> None:
    overrides = ["learning_rate=null", "weight_decay=null"]
    config = load_config(
        None, overrides=["tuning.strategy=grid", *(f"tuning.search_space.{o}" for o in overrides)]
    )
    assert trials_wanted(config.tuning) == 24


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tuning.patience_trials=2"], "SageMaker takes 0 or at least 3"),
        (["tuning.timeout_seconds=60"], "SageMaker takes 0 or at least 120"),
        (["training.warmup_epochs=3"], "must be less than tuning.search_space.epochs.low (3)"),
        (
            ["training.warmup_epochs=2", "tuning.search_space.epochs.choices=[4, 2]"],
            "must be less than tuning.search_space.epochs.choices (2)",
        ),
        (
            [f"tuning.search_space.learning_rate.choices={[n / 100 for n in range(1, 32)]}"],
            "tuning.search_space.learning_rate: 31 values, but SageMaker takes at most 30",
        ),
        (
            [
                "tuning.strategy=grid",
                f"tuning.search_space.learning_rate.choices={[n / 100 for n in range(1, 31)]}",
                f"tuning.search_space.weight_decay.choices={[n / 100 for n in range(26)]}",
                "tuning.search_space.batch_size=null",
                "tuning.search_space.epochs=null",
            ],
            "learning_rate 30 × weight_decay 26 are 780 combinations, of which on SageMaker at "
            "most 750 are allowed",
        ),
        (
            [f"tuning.search_space.batch_size.choices={list(range(16, 47))}"],
            "tuning.search_space.batch_size: 31 values, but SageMaker takes at most 30",
        ),
        (
            ["sagemaker.training.instance_count=17"],
            "tuning.search_space.batch_size.choices: 16 is less than 17, the processes on all 17",
        ),
        (["sagemaker.network.isolation=true"], "model.weights: 'imagenet' is fetched"),
        (
            ["deployment.start_timeout_seconds=20"],
            "deployment.start_timeout_seconds: 20, but SageMaker takes 60 to 3600",
        ),
    ],
)
def test_what_only_sagemaker_refuses_is_told_for_it_alone(
    overrides: list[str], message: str
) -> None:
    config = load_config(None, overrides=overrides)
    problems = managed_problems(config)
    assert len(problems) == 1
    assert message in problems[0]


@pytest.mark.parametrize("other", ["sagemaker.hosting.kind=serverless", "deployment.enabled=false"])
def test_a_short_start_is_refused_only_where_sagemaker_is_told_of_it(other: str) -> None:
    config = load_config(None, overrides=["deployment.start_timeout_seconds=20", other])
    assert managed_problems(config) == []


def test_the_defaults_suit_sagemaker() -> None:
    assert managed_problems(load_config(None)) == []


def test_weights_by_existing_path_or_uri_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()

    for weights in (str(file), str(tmp_path), "s3://bucket/model.tar.gz"):
        config = load_config(None, overrides=[f"model.weights={weights}"])
        assert config.model.weights == weights


def test_a_missing_file_is_named_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").touch()

    problems = problems_of(path=tmp_path / "digit.yaml")

    assert "no such configuration file" in problems[0]
    assert "holds digits.yaml" in problems[0]


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    assert "a folder" in problems_of(path=tmp_path)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"training: [1,", "not valid YAML: line 1, column 14"),
        (b"a: 1\n\tb: 2", "not valid YAML: line 2, column 1"),
        (b"- 1\n- 2\n", "a configuration is a mapping of the sections data, model"),
        (b"3", "holds 3"),
        (b"\xff\xfe\xff", "UTF-8"),
        (b"training:\n  epochs: 1\n  epochs: 2\n", "line 3: the key 'epochs' was given before"),
        (b"training: {epochs: 1, epochs: 2}", "the key 'epochs' was given before"),
        (b"model: !!python/object:os.system {}", "could not determine a constructor"),
        (b"training: &a {epochs: *a}", "recursive"),
        (b"? [1]\n: 2", "unhashable key"),
        (b"\x00", "not valid YAML"),
        (b"model: {}\n---\nmodel: {}", "another document"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)

    problems = problems_of(path=file)

    assert "config.yaml" in problems[0]
    assert message in problems[0]


def test_the_digest_depends_on_values_and_not_on_how_they_were_written(load) -> None:
    written = load("training: {epochs: 10, learning_rate: 0.001}\nmodel: {}")

    assert config_digest(written) == config_digest(Config())
    assert config_digest(load("training: {epochs: 11}")) != config_digest(Config())
    assert len(config_digest(Config())) == 64


def test_loading_imports_nothing_heavy() -> None:
    program = (
        "import sys, darkroom.config.loader as loading; loading.load_config(None);"
        "print(sorted({'torch', 'numpy', 'zenml', 'boto3', 'mlflow', 'PIL'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (done.stdout.strip(), done.stderr) == ("[]", "")
