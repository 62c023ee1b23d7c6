"""Every command, given every kind of wrong input: a message and an exit code, never a traceback."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import darkroom.training.requirements  # noqa: F401 - torch: seconds that are not any one test's
from commands.exits import explained
from run import cli

_LONGEST_SECONDS = 60

CONFIGS = {
    "empty.yaml": b"",
    "binary.yaml": bytes(range(256)),
    "utf16.yaml": "training: {epochs: 3}".encode("utf-16"),
    "list.yaml": b"- 1\n- 2\n",
    "text.yaml": b"just words",
    "unknown_section.yaml": b"trainig: {epochs: 3}",
    "unknown_key.yaml": b"training: {epocs: 3}",
    "twice.yaml": b"training: {epochs: 3}\ntraining: {epochs: 4}",
    "negative.yaml": b"training: {epochs: -3}",
    "huge.yaml": b"training: {epochs: 1e400}",
    "long_number.yaml": b"training: {epochs: " + b"9" * 5000 + b"}",
    "wrong_type.yaml": b"training: []",
    "null.yaml": b"training: null\ndata: {source: 7}",
    "unicode.yaml": "データ: {source: 写真}".encode(),
    "anchors.yaml": b"a: &a [*a]",
    "tag.yaml": b"training: !!python/object/apply:os.system ['true']",
    "deep.yaml": b"[" * 3000,
    "unclosed.yaml": b"training: {epochs: 3",
    "tab.yaml": b"training:\n\tepochs: 3",
}
SETS = [
    *(
        "",
        "=",
        "x",
        "=3",
        "training=3",
        "training.epochs",
        "training.epochs=",
        "training..epochs=3",
    ),
    *("training.epochs=-1", "training.epochs=1e309", "training.epochs=[1]", "training.epochs=.nan"),
    *("training.epochs.x=3", "nope.nope=3", "training.epochs={", "training.epochs=" + "9" * 5000),
    *("model.architecture=🐶", "data.source=", "model.weights=", "tracking.model_name=写真"),
    *("tuning.search_space.learning_rate={low: 3, high: 1}", "sagemaker.network=3"),
]
PATHS = [
    "absent",
    "folder",
    "empty",
    "binary",
    "unreadable",
    "loop",
    "dead",
    "写真",
    "a\x07b",
    "x" * 300,
    "pipe",
    "~nobody-here/x",
]
SCRATCH = ["--set", "model.weights=none"]
"""Nobody is asked for weights."""
NUMBERS = [
    "serve folder --port 99999",
    *("ui --port -1", "ui --port 70000", "prune --keep -1", "runs --sort nonsense"),
    *("batch folder --out o.csv --top-k 0", "batch folder --out o.nonsense"),
    *("predict x.png --top-k -1", "predict x.png --model m --endpoint e", "predict"),
    *(
        "down",
        "down x --all",
        "--stack nonsense",
        "--fault nonsense",
        "--stack rehearsal --fault x",
    ),
    *("deploy a=folder a=folder", "deploy folder folder", "compile folder --images absent"),
    *("compare one", "endpoints --stack nonsense", "check --refresh-prices"),
]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one of each."""
    for name, content in CONFIGS.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "unreadable").write_text("x")
    (tmp_path / "unreadable").chmod(0)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dead").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    # What nobody writes to must not be waited for.
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for ever"))
    signal.alarm(_LONGEST_SECONDS)
    yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    (tmp_path / "unreadable").chmod(0o600)


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes this process's place."""
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("a server was started"))


def refused(*arguments: str) -> str:
    """The message that a command line is refused with; whatever else it ends with is a fault."""
    result = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
    error = result.exception
    if isinstance(error, click.ClickException):
        assert error.exit_code == 2
        return error.format_message()
    told = explained(error) if error else None
    if error and told is None:
        raise error
    assert told is None or told.exit_code == 2
    return str(told or "")


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "empty.yaml"])
def test_a_configuration_that_is_none(name: str, inputs: Path) -> None:
    assert refused("--config", str(inputs / name), "check")


@pytest.mark.parametrize("text", SETS)
def test_a_value_that_cannot_be_set(text: str, inputs: Path) -> None:
    assert refused("--set", text, "check")


@pytest.mark.parametrize("line", NUMBERS)
def test_options_that_do_not_fit(line: str, inputs: Path, no_server: None) -> None:
    assert refused(*line.split())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "command",
    [
        *(["--config", "PATH", "check"], ["--config", "PATH"]),
        *(["--data", "PATH", *SCRATCH, "check"], ["--data", "PATH", *SCRATCH]),
        *(["predict", "x.png", "--model", "PATH"], ["predict", "PATH", "--model", "folder"]),
        *(["batch", "PATH", "--out", "o.csv"], ["batch", "--out", "PATH"]),
        *(["batch", "--out", "o.csv", "--model", "PATH"], ["deploy", "PATH"], ["deploy", "a=PATH"]),
        *(["compile", "PATH"], ["compare", "PATH", "PATH"], ["--summary", "PATH/x/y.json"]),
        *(["predict", "x.png", "--endpoint", "PATH"], ["down", "PATH"], ["serve", "PATH/absent"]),
    ],
    ids=" ".join,
)
def test_a_path_that_leads_nowhere(
    command: list[str], path: str, inputs: Path, no_server: None
) -> None:
    assert refused(*[word.replace("PATH", path) for word in command])
