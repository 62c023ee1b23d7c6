"""What is remembered between runs is looked at before it is believed: the parts alone."""

import errno
import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import zlib
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import pytest
from pydantic import ValidationError

from checkout import CHECKOUT
from commands.main_job import _placement
from darkroom.backends.contract import keep_bundle
from darkroom.backends.local.backend import LocalBackend
from darkroom.backends.placement import backend_of
from darkroom.backends.storage.weights import rules_version, weights_version
from darkroom.base.errors import DarkroomError, UserError
from darkroom.base.files import link_or_copy, workspace
from darkroom.base.locks import alone, holder_of
from darkroom.base.progress import SilentProgress
from darkroom.config import Config
from darkroom.config.debugging import CustomRuleConfig, DiagnosisConfig
from darkroom.config.sagemaker import Placement
from darkroom.data.dataset import Dataset
from darkroom.data.hashes import check_unchanged, difference, discard_copy
from darkroom.telemetry.recording import Recording
from darkroom.tracking.registry import probability_columns
from darkroom.tracking.store import newest_experiment
from held_locks import HOLDS
from materializers.recording import RecordingMaterializer
from small_bundles import write_small_bundle
from small_trainings import small_hyperparameters, write_dataset
from stacks.stores import database_errors_explained, prepare_stores
from steps.cache_policy import depends_on, installed_versions
from steps.reuse import _problem


class Told(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path / "store" / "unpacked" / "digest" / "content")


def test_images_that_are_gone_or_changed_are_named(dataset: Dataset, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert difference(dataset, store=store) == ""
    first, second = dataset.records[:2]
    dataset.file(first).write_bytes(dataset.file(second).read_bytes())
    assert f"{first.path!r} is changed" in difference(dataset, store=store)
    dataset.file(first).unlink()
    dataset.file(second).unlink()
    assert "2 images are gone" in difference(dataset, store=store)


def test_an_evaluation_refuses_images_other_than_those_that_were_ingested(
    dataset: Dataset, tmp_path: Path
) -> None:
    trained, measured = dataset.split("train")[0], dataset.split("test")[0]
    dataset.file(trained).unlink()
    check_unchanged(dataset, splits=("test", "validation"), store=tmp_path / "store")
    dataset.file(measured).write_bytes(dataset.file(dataset.split("test")[1]).read_bytes())
    with pytest.raises(UserError, match=f"{measured.path!r} is changed since it was ingested"):
        check_unchanged(dataset, splits=("test", "validation"), store=tmp_path / "store")


def test_only_the_stores_own_copy_is_discarded(dataset: Dataset, tmp_path: Path) -> None:
    discard_copy(dataset, store=tmp_path / "another")
    assert dataset.root.is_dir()
    (tmp_path / "store" / "unpacked" / "other").mkdir()
    discard_copy(dataset, store=tmp_path / "store")
    assert [path.name for path in (tmp_path / "store" / "unpacked").iterdir()] == ["other"]


def test_a_rule_and_what_it_imports_count_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rule.py").write_text("import helper\n\ndef mine(evidence): ...\n")
    Path("helper.py").write_text("x = 1\n")
    config = DiagnosisConfig(custom=(CustomRuleConfig(function="rule.py:mine"),))

    def version() -> str:
        return rules_version(config, store=tmp_path / "store")

    first = version()
    assert version() == first
    Path("helper.py").write_text("x = 2\n")
    second = version()
    Path("rule.py").write_text("import helper\n\ndef mine(evidence): pass\n")
    assert len({first, second, version()}) == 3
    assert rules_version(DiagnosisConfig(), store=tmp_path / "store") == ""


def test_weights_count_by_content_and_named_ones_by_name(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    file.write_bytes(b"one")
    first = weights_version(str(file), store=tmp_path / "store")
    file.write_bytes(b"two")
    assert weights_version(str(file), store=tmp_path / "store") != first
    assert weights_version("imagenet", store=tmp_path / "store") == ""
    with pytest.raises(UserError, match="no weights at"):
        weights_version(str(tmp_path / "nowhere"), store=tmp_path / "store")


def test_what_is_installed_is_part_of_every_key() -> None:
    assert depends_on("darkroom.base.errors").cache_func is not None
    assert "torch 2" in installed_versions()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_second_process_waits_for_the_first_says_so_and_outlives_its_death(
    end: signal.Signals, tmp_path: Path
) -> None:
    lock = tmp_path / "locks" / "work.lock"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    told = Told()
    with first:
        assert first.stdout
        assert first.stdout.readline() == b"held\n"
        assert holder_of(lock)

        class Ends(Told):
            def message(self, text: str) -> None:
                told.message(text)
                first.send_signal(end)

        with alone(lock, doing="makes the same training", progress=Ends()) as waited:
            assert waited
            assert holder_of(lock)
    assert told.lines == [
        f"run other-run (process {first.pid}) makes the same training: waiting for it to end …"
    ]
    assert holder_of(lock) is None
    with alone(lock, doing="") as waited:
        assert not waited


def test_equal_bundles_stay_and_damaged_ones_are_replaced(tmp_path: Path) -> None:
    packed = write_small_bundle(tmp_path / "packed")

    def keep() -> Path:
        copy = tmp_path / "copy"
        copy.mkdir()
        for file in packed.iterdir():
            link_or_copy(file, copy / file.name)
        return keep_bundle(copy, folder=tmp_path / "bundles").folder

    place = keep()
    first = place.stat().st_ino
    assert keep().stat().st_ino == first
    (place / "model.onnx").unlink()
    (place / "model.onnx").write_bytes(b"damaged")
    assert keep().stat().st_ino != first
    assert (place / "model.onnx").samefile(packed / "model.onnx")


def store(workspace: Path, *, place: Path | None = None) -> Path:
    """ZenML's and MLflow's databases with the columns that hold paths of a place."""
    place = place or workspace
    folder = workspace / "zenml" / "local_stores" / "default_zen_store"
    folder.mkdir(parents=True)
    (workspace / "artifacts").mkdir()
    url = f"sqlite:///{place}/zenml/local_stores/default_zen_store/zenml.db"
    (workspace / "zenml" / "config.yaml").write_text(f"store:\n  type: sql\n  url: {url}\n")
    with closing(sqlite3.connect(folder / "zenml.db")) as connection, connection:
        connection.execute("CREATE TABLE stack (name TEXT)")
        connection.execute("INSERT INTO stack VALUES ('darkroom-local')")
        connection.execute("CREATE TABLE artifact_version (uri TEXT)")
        connection.execute(f"INSERT INTO artifact_version VALUES ('{place}/artifacts/a/1')")
    with closing(sqlite3.connect(workspace / "artifacts" / "mlflow.db")) as connection, connection:
        connection.execute(
            "CREATE TABLE runs (artifact_uri TEXT, experiment_id INT, start_time INT)"
        )
        connection.execute(f"INSERT INTO runs VALUES ('file://{place}/artifacts/m', 3, 1)")
        connection.execute(f"INSERT INTO runs VALUES ('file://{place}/artifacts/m', 4, 2)")
    return folder / "zenml.db"


def value(database: Path, query: str) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return str(connection.execute(query).fetchone()[0])


def test_a_workspace_that_was_moved_or_copied_knows_its_own_place_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    untouched = store(original)
    database = store(copy, place=original)
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(copy / "zenml"))
    prepare_stores(copy)
    prepare_stores(copy)
    assert value(database, "SELECT uri FROM artifact_version") == f"{copy}/artifacts/a/1"
    found = value(copy / "artifacts" / "mlflow.db", "SELECT artifact_uri FROM runs")
    assert found == f"file://{copy}/artifacts/m"
    assert str(original) not in (copy / "zenml" / "config.yaml").read_text()
    assert value(untouched, "SELECT uri FROM artifact_version") == f"{original}/artifacts/a/1"


def test_a_workspace_by_another_name_of_its_own_is_no_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = store(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "link" / "zenml"))
    prepare_stores(tmp_path / "link")
    assert value(database, "SELECT uri FROM artifact_version").startswith(f"{tmp_path}/real/")


@pytest.mark.parametrize("name", ["zenml.db", "mlflow.db"])
@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + b"\7" * 4096])
def test_a_damaged_database_is_named_with_what_to_do(
    name: str, damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "home")
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "home" / "zenml"))
    database = next((tmp_path / "home").rglob(name))
    database.write_bytes(damage)
    with pytest.raises(DarkroomError, match=f"is damaged .*mv {database}") as raised:
        prepare_stores(tmp_path / "home")
    assert not isinstance(raised.value, UserError)


def test_a_locked_database_is_told_without_a_traceback(tmp_path: Path) -> None:
    def work() -> None:
        try:
            raise sqlite3.OperationalError("database is locked")
        except sqlite3.Error as error:
            raise RuntimeError("MLflow's own words") from error

    with (
        pytest.raises(DarkroomError, match="stayed locked by another process"),
        database_errors_explained(tmp_path),
    ):
        work()


def test_the_interface_opens_on_the_newest_runs_experiment(tmp_path: Path) -> None:
    store(tmp_path)
    assert newest_experiment(tmp_path / "artifacts" / "mlflow.db") == "4"


def test_classes_called_like_the_tables_columns_get_columns_of_their_own() -> None:
    classes = ["class", "probability", "probability of class", "cat"]
    columns = probability_columns(classes)
    assert len({*columns, "class", "probability"}) == 6
    assert columns[2:] == classes[2:]


def test_the_record_of_who_waits_is_json_and_gone_afterwards(tmp_path: Path) -> None:
    with alone(tmp_path / "x.lock", doing="", name="a-run"):
        assert json.loads((tmp_path / "x.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "x.json").exists()


def test_without_the_cache_what_earlier_runs_left_goes_and_what_this_one_left_stays(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    hyperparameters = small_hyperparameters(epochs=1)
    of_earlier, own = tmp_path / "home" / "training" / "a", tmp_path / "home" / "training" / "b"
    of_earlier.mkdir(parents=True)
    os.utime(of_earlier, (1, 1))
    begun = tmp_path / "home" / "locks" / "fresh.txt"
    cached = _placement(Config(), stack="local", begun=None, name="a-run")
    fresh = _placement(Config(), stack="local", begun=begun, name="a-run")
    own.mkdir()
    os.utime(own, (begun.stat().st_mtime + 1,) * 2)

    def there(placement: Placement) -> list[bool]:
        backend = backend_of(placement, run="a-run")
        assert isinstance(backend, LocalBackend)
        for place in (of_earlier, own):
            backend._discard(
                place, dataset=dataset, hyperparameters=hyperparameters, progress=SilentProgress()
            )
        return [place.is_dir() for place in (of_earlier, own)]

    assert there(cached) == [True, True]
    assert there(fresh) == [False, True]
    again = _placement(Config(), stack="local", begun=begun, name="killed-and-again")
    assert again == fresh


class Artifact:
    """One whose file does something to whoever reads it."""

    name = "model_bundle"

    def __init__(self, error: Exception, *, cause: Exception | None = None) -> None:
        self.error, self.cause = error, cause

    def load(self) -> object:
        raise self.error from self.cause


def invalid() -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        Config.model_validate({"data": 1})
    return raised.value


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (FileNotFoundError("gone"), None),
        (NotADirectoryError("replaced"), None),
        (UserError("not what was packed"), None),
        (UserError("not what was packed"), ValueError("digest")),
        (json.JSONDecodeError("cut", "{", 1), None),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "changed"), None),
        (invalid(), None),
        (EOFError("cut"), None),
        (tarfile.ReadError("cut"), gzip.BadGzipFile("changed")),
        (zlib.error("changed"), None),
    ],
)
def test_a_damaged_result_is_computed_anew(error: Exception, cause: Exception | None) -> None:
    assert "'model_bundle' cannot be read" in _problem(Artifact(error, cause=cause))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), None),
        (OSError(errno.ENOSPC, "full"), None),
        (OSError(errno.EMFILE, "too many files"), None),
        (PermissionError(errno.EACCES, "no"), None),
        (UserError("cannot be read"), PermissionError(errno.EACCES, "no")),
        (UserError("no safetensors file"), OSError(errno.EIO, "the disk fails")),
        (tarfile.ReadError("no archive"), OSError(errno.EIO, "the disk fails")),
        (DarkroomError("the server does not answer"), None),
        (ConnectionError("refused"), None),
        (AttributeError("a bug"), None),
        (TypeError("a bug"), None),
        (RuntimeError("can't allocate memory"), None),
    ],
)
def test_what_says_nothing_about_a_result_is_told_as_what_it_is(
    error: Exception, cause: Exception | None
) -> None:
    with pytest.raises(type(error)) as raised:
        _problem(Artifact(error, cause=cause))
    assert raised.value is error


class Store:
    """An artifact store of a folder."""

    def exists(self, path: str) -> bool:
        return Path(path).exists()

    def open(self, path: str, mode: str) -> IO[Any]:
        return open(path, mode)


@pytest.fixture
def recording(tmp_path: Path) -> tuple[RecordingMaterializer, Recording]:
    """A recording that was stored."""
    folder = tmp_path / "recorded"
    (folder / "tensors").mkdir(parents=True)
    (folder / "tensors" / "step-1").write_bytes(b"1.00")
    (folder / "steps.jsonl").write_bytes(b"{}")
    (tmp_path / "artifact").mkdir()
    materializer = RecordingMaterializer(str(tmp_path / "artifact"), Store())
    stored = Recording(folder)
    materializer.save(stored)
    return materializer, stored


def test_a_recording_that_was_changed_is_not_taken_for_the_stored_one(recording: Any) -> None:
    materializer, stored = recording
    digest = materializer.compute_content_hash(stored)
    loaded = materializer.load(Recording)
    assert loaded.folder != stored.folder
    assert materializer.compute_content_hash(loaded) == digest
    tensors = loaded.folder / "tensors" / "step-1"
    tensors.write_bytes(b"2.00")  # in place: in all folders that hold the file
    (loaded.folder / "more").touch()
    assert materializer.compute_content_hash(stored) != digest
    again = materializer.load(Recording)
    assert (again.folder / "tensors" / "step-1").read_bytes() == b"1.00"
    assert materializer.compute_content_hash(again) == digest
    assert materializer.compute_content_hash(Recording(None)) != digest


def test_a_recording_whose_archive_is_gone_or_damaged(recording: Any) -> None:
    materializer, stored = recording
    digest = materializer.compute_content_hash(stored)
    archive = next(Path(materializer.uri).iterdir())
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    assert materializer.compute_content_hash(materializer.load(Recording)) == digest
    shutil.rmtree(workspace() / "recordings")
    with pytest.raises((EOFError, tarfile.TarError, zlib.error)):
        materializer.load(Recording)
    archive.unlink()
    assert materializer.compute_content_hash(materializer.load(Recording)) != digest
