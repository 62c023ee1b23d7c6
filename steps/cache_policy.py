"""When a cached result may be reused.

ZenML's cache key covers a step's own source, its parameters and its inputs, not the modules
that it calls. The policy adds them: every file of ours that a step's work imports, directly
or not, and what is installed of the packages that compute: another torch computes other numbers.
"""

import ast
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from zenml.config.cache_policy import CachePolicy

_COMPUTING = (
    *("numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "matplotlib"),
    *("pillow", "pillow-heif", "torch", "torchvision", "safetensors", "optuna", "smdebug"),
    *("onnx", "onnxruntime", "openvino", "apache-tvm", "mlflow", "mlflow-skinny"),
)
"""Packages on which results depend."""
_CHECKOUT = Path(__file__).resolve().parent.parent


def depends_on(*modules: str, files: tuple[str, ...] = ()) -> CachePolicy:
    """A policy that reuses results until the code of `modules` changes.

    Args:
        modules: dotted names, such as "darkroom.training.loop".
        files: further files, or folders with all that is in them, relative to the checkout.
    """
    sources = {path for module in modules for path in imported_files(module)}
    extra = {path for file in files for path in _files_below(_CHECKOUT / file)}
    paths = sorted(str(path.relative_to(_CHECKOUT)) for path in sources | extra)
    return CachePolicy(
        file_dependencies=[*paths, "requirements.lock"],
        cache_func=f"{__name__}.{installed_versions.__name__}",
    )


@cache
def installed_versions() -> str:
    """Python and the packages on which results depend, as they are installed here."""
    found = [f"python {platform.python_version()} {platform.machine()}"]
    for name in _COMPUTING:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} none")
    return ", ".join(found)


@cache
def imported_files(module: str) -> frozenset[Path]:
    """The files of `module` and of all that it imports from `darkroom`, transitively."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = _file_of(waiting.pop())
        if path and path not in found:
            found.add(path)
            waiting.extend(_imports(path))
    return frozenset(found)


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Names that may be modules: `from a.b import c` gives a.b and a.b.c."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.split(".")[0] == "darkroom")


def _file_of(module: str) -> Path | None:
    base = _CHECKOUT.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _files_below(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
