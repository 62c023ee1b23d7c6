"""Every command that README and docs show is run as it stands, where that can be done offline.

Those that need AWS, Docker or the network are parsed: options, targets, programs have to exist.
"""

import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import requests

from checkout import CHECKOUT
from darkroom.models.bundle import pack
from pictures import write_image_folder
from run import cli

pytestmark = pytest.mark.timeout(600)

PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]

FOREIGN = ("aws", "docker", "export", "mlflow", "source", "zenml")
"""Programs that are not ours."""

SHORT = (
    "--set tuning.enabled=false --set training.epochs=1 --set training.warmup_epochs=0 "
    "--set model.weights=none --set model.image_size=32 --set model.resize_size=32 "
    "--set deployment.gate_threshold=0 --set deployment.check_images=4 "
    "--set evaluation.bootstrap_samples=100"
)
"""Added to trainings, which are documented as they are run for real."""

DIVERGES = "--set training.learning_rate=1 --set tuning.enabled=false"
"""Documented as a training that goes wrong, and is told of: it is run as it stands."""

ELSEWHERE = (
    "--stack sagemaker",
    "--stack rehearsal",  # minutes; tests of the rehearsal run it
    "-m rehearsal",
    "https://",
    "s3://",
)
"""What only AWS, a rehearsal or the internet answers."""

SERVERS = re.compile(r"run\.py (serve|ui)\b")
TRAININGS = re.compile(r"run\.py(?! [a-z])")


@dataclass(frozen=True)
class Documented:
    page: str
    command: str

    @property
    def program(self) -> str:
        return shlex.split(self.command, comments=True)[0]

    @property
    def is_elsewhere(self) -> bool:
        # Without a stack, these two speak of AWS.
        is_of_aws = re.search(r"run\.py (endpoints|down)\b", self.command)
        return any(place in self.command for place in ELSEWHERE) or bool(
            is_of_aws and "--stack local" not in self.command
        )

    def __str__(self) -> str:
        return f"{self.page}: {self.command}"


def _documented() -> list[Documented]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.S):
            for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.M):
                joined = re.sub(r"\s*\\\n\s*", " ", command)
                found += [Documented(page.name, part.strip()) for part in _parts(joined)]
    return found


def _parts(line: str) -> list[str]:
    """Split a line at `;` and `&&` outside quotes, without its comment."""
    words = shlex.shlex(line, posix=False, punctuation_chars=";&")
    words.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in words:
        if word in {";", "&&"}:
            parts.append([])
        else:
            parts[-1].append(word)
    return [" ".join(part) for part in parts if part]


COMMANDS = _documented()
OURS = [c for c in COMMANDS if c.command.startswith("python run.py")]
RUN_HERE = list({c.command: c for c in OURS if not c.is_elsewhere}.values())


def test_every_page_is_seen() -> None:
    assert {"README.md", "serving.md", "sagemaker.md"} <= {c.page for c in COMMANDS}
    assert len(OURS) > 30
    assert len(RUN_HERE) > 20


@pytest.mark.parametrize("documented", OURS, ids=str)
def test_its_options_exist(documented: Documented) -> None:
    words = shlex.split(documented.command.split(" > ")[0].split(" | ")[0])[2:]
    words = [word for word in words if not word.startswith("$")]
    at = next((at for at, word in enumerate(words) if word in cli.commands), len(words))
    click.Command("run.py", params=cli.params).make_context("run.py", words[:at])
    for name in words[at : at + 1]:
        cli.commands[name].make_context(name, words[at + 1 :])


@pytest.mark.parametrize(
    "documented", [c for c in COMMANDS if " -m benchmarks." in c.command], ids=str
)
def test_the_benchmark_has_its_options(documented: Documented) -> None:
    words = shlex.split(documented.command)
    source = (CHECKOUT / "benchmarks" / (words[2].removeprefix("benchmarks.") + ".py")).read_text()
    assert [word for word in words[3:] if word.startswith("--") and f'"{word}"' not in source] == []


@pytest.mark.parametrize("documented", [c for c in COMMANDS if c.program == "make"], ids=str)
def test_the_make_target_exists(documented: Documented) -> None:
    target = shlex.split(documented.command)[1]
    assert re.search(rf"^{target}:", (CHECKOUT / "Makefile").read_text("utf-8"), re.M)


def test_no_other_program_is_shown() -> None:
    known = ("python", "make", "curl", "serve", ".venv/bin/uv", "train", *FOREIGN)
    others = {c.command for c in COMMANDS if c.program not in known and "=" not in c.program}
    assert others == set()


@dataclass(frozen=True)
class Newcomer:
    """A folder with what the documents take for granted: photographs, models, runs."""

    folder: Path
    environment: dict[str, str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=500,
            check=False,
        )

    def train(self, *options: str) -> Path:
        ended = self.run(" ".join(["python run.py --data my-photos", SHORT, *options]))
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return (self.folder / ".darkroom" / "runs" / "latest").resolve()

    @contextmanager
    def served(self, command: str, *, path: str) -> Iterator[int]:
        """Run a server's command on a free port, which is returned, until the block ends."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = re.sub(r" --port \d+", "", command)
        errors = self.folder / "server.log"
        with errors.open("w") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command} --port {port}"],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        try:
            deadline = time.monotonic() + 100
            while not _answers(f"http://127.0.0.1:{port}{path}"):
                assert process.poll() is None, errors.read_text()
                assert time.monotonic() < deadline, errors.read_text()
                time.sleep(0.1)
            yield port
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


def _write_sources(folder: Path) -> None:
    """The archives and label files of docs/data.md."""
    for name, parts in {
        "brain-tumor-mri": ("Training", "Testing"),
        "photos": ("early", "late/a", "latest"),
    }.items():
        for part in parts:
            write_image_folder(folder / "made" / name / part, per_class=4)
        shutil.make_archive(str(folder / name), "zip", folder / "made" / name)
    shutil.make_archive(str(folder / "photos"), "tar", folder / "photos")
    files = sorted((folder / "photos").rglob("*.png"))
    rows = [(str(file.relative_to(folder / "photos")), file.parent.name) for file in files]
    lines = ["file,label", *(f"{path},{label}" for path, label in rows)]
    (folder / "labels.csv").write_text("\n".join(lines))
    splits = ("train", "train", "train", "validation", "test")
    people = [f"{rows[at][0]},{rows[at][1]},{splits[at % 5]},p{at % 5}" for at in range(len(rows))]
    (folder / "people.csv").write_text("\n".join(["Foto,Sorte,Teil,person", *people]))


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    folder = tmp_path_factory.mktemp("newcomer")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "DARKROOM_HOME": str(folder / ".darkroom"),
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
    }
    for name in ("run.py", "configs"):
        (folder / name).symlink_to(CHECKOUT / name)
    newcomer = Newcomer(folder=folder, environment=environment)
    for name in ("my-photos", "photos", "photographs", "another-folder", "more-photos"):
        write_image_folder(folder / name, per_class=10)
    picture = next((folder / "photos").rglob("*.png"))
    for name in ("some.jpg", "photo.jpg", "dress.jpg", "hat.png"):
        shutil.copy(picture, folder / name)
    shutil.make_archive(str(folder / "archive"), "zip", folder / "photos")
    _write_sources(folder)
    after = newcomer.train()
    before = newcomer.train("--set training.learning_rate=0.01")
    for run, names in ((before, ("RUN", "BEFORE")), (after, ("AFTER", "OTHER_RUN"))):
        for name in names:
            shutil.copytree(run, run.parent / name, symlinks=True)
    (folder / "runs").mkdir()
    pack(after / "model", folder / "runs" / "model.tar.gz")
    shutil.copytree(after / "model", folder / "FOLDER" / "one")
    return newcomer


@pytest.mark.slow
@pytest.mark.parametrize(
    "documented", [c for c in RUN_HERE if not SERVERS.search(c.command)], ids=str
)
def test_it_runs(documented: Documented, newcomer: Newcomer) -> None:
    command = documented.command.replace("$short", "")
    diverges = DIVERGES in command
    if TRAININGS.search(command) and "--data" not in command:
        command += " --data my-photos"
    if TRAININGS.search(command) and not diverges:
        command += f" {SHORT}"
    ended = newcomer.run(command)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    if diverges:
        assert "error: The learning rate is too high" in ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("documented", [c for c in RUN_HERE if SERVERS.search(c.command)], ids=str)
def test_it_serves(documented: Documented, newcomer: Newcomer) -> None:
    is_mlflow = "run.py ui" in documented.command
    with newcomer.served(documented.command, path="/" if is_mlflow else "/ping") as port:
        assert port
    assert "Warning" not in (newcomer.folder / "server.log").read_text()


@pytest.fixture(scope="module")
def port(newcomer: Newcomer) -> Iterator[int]:
    with newcomer.served("python run.py serve", path="/ping") as port:
        yield port


@pytest.mark.slow
@pytest.mark.parametrize(
    "documented", [c for c in COMMANDS if c.program == "curl" and not c.is_elsewhere], ids=str
)
def test_the_server_answers(documented: Documented, newcomer: Newcomer, port: int) -> None:
    ended = newcomer.run(documented.command.replace("8080", str(port)) + " --fail-with-body -s")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"\b(blue|green|red)\b", ended.stdout)


@pytest.mark.slow
def test_the_programs_explain_themselves(newcomer: Newcomer) -> None:
    assert "--models" in newcomer.run("serve --help").stdout
    assert newcomer.run("train --help").returncode == 0
