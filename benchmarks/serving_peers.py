"""The peers that `serve` is measured against, in environments of their own.

    python -m benchmarks.serving_peers --setup [--folder FOLDER]

    mms         AWS's multi-model-server 1.1.11 with sagemaker-inference 1.10.1, on Java 17,
                eager PyTorch, one worker
    mms-cores   the same with a worker for each core, one thread each
    litserve    LitServe 0.2.19, eager PyTorch, batches of 8 at most

They share this environment's PyTorch by a path file, so that it is not installed again.
Java is needed beforehand: apt-get install openjdk-17-jre-headless.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.hosting_environment import NotInstalledError, uv
from benchmarks.serving_processes import Launch
from darkroom.models.bundle import WEIGHTS_FILE, read_bundle
from darkroom.models.prediction import available_cores

FOLDER = Path(".darkroom/benchmarks/peers")
PEERS = ("mms", "mms-cores", "litserve")

_PROGRAMS = Path(__file__).with_name("peers")
# sagemaker-inference asks for a `retrying` that no longer installs, and imports pkg_resources.
_PACKAGES = {
    "mms": (
        "--no-deps",
        "multi-model-server==1.1.11",
        "sagemaker-inference==1.10.1",
        "enum-compat==0.0.3",
        "future==1.0.0",
        "model-archiver==1.0.3",
        "retrying==1.4.2",
        "setuptools==80.10.2",
    ),
    "litserve": ("litserve==0.2.19",),
}
_MMS_START = "from mms.model_server import start; start()"
_MMS_PROPERTIES = """vmargs=-XX:-UseContainerSupport
inference_address=http://127.0.0.1:{{port}}
management_address=http://127.0.0.1:{{port}}
default_workers_per_model={workers}
default_service_handler=sagemaker_inference.default_handler_service:handle
decode_input_request=false
async_logging=true
"""


def setup(folder: Path) -> None:
    """Make the environments that are missing.

    Raises:
        NotInstalledError: uv failed.
    """
    for name, packages in _PACKAGES.items():
        environment = folder / name
        if (environment / "complete").exists():
            continue
        shutil.rmtree(environment, ignore_errors=True)
        making = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
        subprocess.run(making, check=True)
        uv(["install", *packages], environment=environment)
        site = environment / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        # After the environment's own: last in the alphabet, last on the path.
        (site / "zz_shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (environment / "complete").touch()


def missing(peer: str, *, folder: Path) -> str:
    """Why a peer cannot be measured; empty: it can."""
    if peer.startswith("mms") and shutil.which("java") is None:
        return "there is no java on the PATH: apt-get install openjdk-17-jre-headless"
    if not (folder / _environment(peer) / "complete").exists():
        return "not installed: python -m benchmarks.serving_peers --setup"
    return ""


def launch(peer: str, *, bundle: Path, folder: Path, scratch: Path) -> Launch:
    """How to start a peer with the network of a bundle.

    Args:
        folder: of the environments.
        scratch: is emptied.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    model = _write_model(bundle, folder=scratch / "model")
    python = str((folder / _environment(peer) / "bin" / "python").absolute())
    if peer == "litserve":
        program = [python, str(_PROGRAMS / "litserve_server.py"), str(model), "--port", "{port}"]
        return Launch(peer, command=tuple(program), ping="/health", path="/predict")
    return _mms(peer, model=model, python=python, scratch=scratch)


def _mms(peer: str, *, model: Path, python: str, scratch: Path) -> Launch:
    workers = available_cores() if peer == "mms-cores" else 1
    properties = scratch / "mms.properties"
    temporary = scratch / "tmp"
    temporary.mkdir()
    (model / "code").mkdir()
    shutil.copy(_PROGRAMS / "inference.py", model / "code")
    start = [python, "-c", _MMS_START, "--start", "--foreground"]
    options = ["--mms-config", str(properties), "--model-store", "/", "--models", f"model={model}"]
    threads = {"OMP_NUM_THREADS": "1"} if workers > 1 else {}
    return Launch(
        peer,
        command=(*start, *options),
        environment={
            # The second is what the toolkit's own start program puts there.
            "PYTHONPATH": f"{_PROGRAMS}{os.pathsep}{model / 'code'}",
            "SAGEMAKER_BASE_DIR": str(scratch),
            "TMPDIR": str(temporary),
            "TEMP": str(temporary),
            **threads,
        },
        folder=str(scratch),
        files={str(properties): _MMS_PROPERTIES.format(workers=workers)},
    )


def _write_model(bundle: Path, *, folder: Path) -> Path:
    """The network of a bundle, as eager.py reads it."""
    metadata = read_bundle(bundle).metadata
    how = metadata.preprocessing.model_dump()
    facts = {"architecture": metadata.architecture, "classes": metadata.classes, **how}
    folder.mkdir(parents=True)
    shutil.copy(bundle / WEIGHTS_FILE, folder / "model.safetensors")
    (folder / "network.json").write_text(json.dumps(facts))
    return folder.absolute()


def _environment(peer: str) -> str:
    return peer.partition("-")[0]


def main() -> None:
    """Make the environments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setup", action="store_true", help="install what is missing")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    if options.setup:
        try:
            setup(options.folder)
        except NotInstalledError as error:
            sys.exit(f"a peer could not be installed: {error}")
    for peer in PEERS:
        print(f"{peer:10} {missing(peer, folder=options.folder) or 'ready'}")


if __name__ == "__main__":
    main()
