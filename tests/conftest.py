"""What every test starts from: a workspace of its own, and no settings of the user's."""

import atexit
import os
import shutil
import signal
import sys
import tempfile

# Before torch is imported: tests run side by side, one thread each.
os.environ["OMP_NUM_THREADS"] = "1"


def _leave_home() -> None:
    """Give this process, one of several workers, a home of its own.

    Libraries look there while they are imported: ZenML makes its store, matplotlib lists fonts,
    torch keeps weights. Two workers that make the same store at once fail, and the user's is not
    ours to touch.
    """
    home = tempfile.mkdtemp(prefix="darkroom-tests-home-", dir=os.environ.get(_CONTROLLERS_HOME))
    if _CONTROLLERS_HOME not in os.environ:  # a worker is killed at its end, and clears nothing up
        os.environ[_CONTROLLERS_HOME] = home
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    packages = _uv_cache()
    for name in [name for name in os.environ if name.startswith(_OWN_FOLDERS)]:
        del os.environ[name]
    os.environ["HOME"] = home
    if packages:
        os.environ["UV_CACHE_DIR"] = packages


def _uv_cache() -> str:
    """Where uv keeps what it has fetched: tests of the images install it anew, offline."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.environ.get("UV_CACHE_DIR") or os.path.join(caches, "uv")
    return folder if os.path.isdir(folder) else ""


_OWN_FOLDERS = ("XDG_", "ZENML_", "MLFLOW_", "TORCH_", "MPLCONFIGDIR", "UV_CACHE", "HF_")
"""Variables by which a user may have sent such libraries elsewhere."""
_CONTROLLERS_HOME = "TESTS_HOME"
"""In the environment of workers: the folder that the process which started them removes."""
_leave_home()

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import hypothesis
import pytest

from pictures import write_image_folder

# The same examples each time; `--hypothesis-profile default` looks for others.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that may take longest, as their tests' timeouts say.

    Workers take whole files in this order. One that began at the end would keep the others idle.
    """
    longest: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0), mark.args[0] if mark else 0)
    items.sort(key=lambda item: -longest[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport) -> None:
    """Say at once how a worker ended that a test took down: xdist tells the test, at the end."""
    process = report.node.gateway._io.popen  # type: ignore[attr-defined]
    report.longrepr = f"{report.longrepr}; its exit code: {process.wait(10)}"
    print(f"\n{report.longrepr}", flush=True)


_FOREIGN = ("AWS_", "DARKROOM_", "MLFLOW_", "SAGEMAKER_", "SM_", "ZENML_")


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path) -> Iterator[None]:
    """Nothing of the user's environment is seen, nothing is written outside tmp_path.

    Nor does a test leave variables to the next: what commands set in this process (where ZenML's
    store is, say), the fixtures of the next module would hand to the programs that they start.
    """
    before = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    with pytest.MonkeyPatch.context() as patch:
        if "boto3" in sys.modules:  # its default session keeps the credentials that it once found
            patch.setattr(sys.modules["boto3"], "DEFAULT_SESSION", None)
        _set_environment(before | {"DARKROOM_HOME": str(tmp_path / "darkroom-home")})
        yield
    _set_environment(before)


def _set_environment(wanted: Mapping[str, str]) -> None:
    """All but what pytest itself says there, of the test that runs."""
    for name in [name for name in os.environ if not name.startswith("PYTEST_")]:
        if name not in wanted:
            del os.environ[name]
    os.environ.update({n: v for n, v in wanted.items() if not n.startswith("PYTEST_")})


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> None:
    """Programs that tests start take Ctrl-C and a closed terminal as they do for a user.

    Under nohup, or in the background of a shell, they would inherit that these are ignored.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """`write_image_folder` into a folder of this test's."""
    return partial(write_image_folder, tmp_path / "images")
