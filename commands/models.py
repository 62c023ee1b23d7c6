"""The model that a command works on, by any of its names, and the run that it comes from."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.base.values import did_you_mean
from darkroom.config import Config
from darkroom.config.loader import load_config
from darkroom.models.bundle import METADATA_FILE, WEIGHTS_FILE, open_bundle

CONFIG_FILE = "config.yaml"
"""In a run's folder: the configuration that it went by."""
_REGISTERED = "models:/"
_RUNS_NAMED = 5


@dataclass(frozen=True)
class FoundModel:
    """A bundle, and where it comes from."""

    path: Path
    """Bundle folder or archive."""
    run: Path | None
    """Folder of the run that trained it; None: not on this machine."""

    def settings(
        self, *, config: Path | None, overrides: Sequence[str], needs_data: bool = False
    ) -> Config:
        """What a command goes by: the file that is named, else the configuration of the run.

        Args:
            needs_data: whether `data.source` is going to be read.

        Raises:
            UserError: a configuration that has to change, or none that names the data.
        """
        if config is not None:
            return load_config(config, overrides=overrides)
        kept = self.run / CONFIG_FILE if self.run else None
        if kept and kept.is_file():
            return load_config(kept, overrides=overrides)
        known = _from_summary(self.run) if self.run else []
        if needs_data and not known:
            raise UserError(
                f"the model {str(self.path)!r} comes from no run on this machine that tells its "
                "data: name a SOURCE of images, or give the --config that it was trained by"
            )
        return load_config(None, overrides=[*known, *overrides])


def why_not_deployed(run: Path) -> str:
    """Why a run deployed no model, such as its gate's refusal; empty where nothing is known."""
    with suppress(OSError, ValueError, AttributeError):
        return str(json.loads((run / "summary.json").read_bytes()).get("endpoint_reason") or "")
    return ""


def find_model(name: str | None) -> FoundModel:
    """A model by the path of its bundle or run, its run's name, or its name in the registry.

    Args:
        name: a bundle's folder or archive; a run's name or folder; `models:/NAME/VERSION` or
            `models:/NAME@ALIAS`; None: the newest run's.

    Raises:
        UserError: there is no such model.
    """
    if name is None:
        newest = workspace() / "runs" / "latest"
        if not (newest / "model").is_dir():
            raise UserError(
                "no model yet: run `python run.py --stack local` first, or name a bundle folder "
                "or a model.tar.gz"
            )
        return _of_run(newest.resolve())
    if name.startswith(_REGISTERED):
        return _registered(name)
    path = Path(name).expanduser()
    try:
        if _is_run(path):
            return _of_run(path.resolve())
        if path.exists():
            return FoundModel(path, run=_run_of(path))
    except OSError as error:
        raise UserError(f"the model {name!r:.300} cannot be read: {error.strerror}") from error
    if os.sep not in name and _is_run(workspace() / "runs" / name):
        return _of_run((workspace() / "runs" / name).resolve())
    raise UserError(_unknown(name))


def _is_run(folder: Path) -> bool:
    return (folder / "model" / METADATA_FILE).is_file() and not (folder / METADATA_FILE).exists()


def _of_run(folder: Path) -> FoundModel:
    return FoundModel(folder / "model", run=folder)


def _runs() -> list[Path]:
    """Folders of the runs that left a model, the newest first."""
    found = (workspace() / "runs").glob(f"*/model/{METADATA_FILE}")
    folders = {path.parent.parent for path in found if not path.parent.parent.is_symlink()}
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _run_of(bundle: Path) -> Path | None:
    """The run that a bundle lies in, or whose weights it holds."""
    absolute = Path(os.path.abspath(bundle))
    inside = [run for run in _runs() if absolute == run / "model"]
    if inside:
        return inside[0]
    weights = ""
    with suppress(UserError, OSError), open_bundle(bundle) as folder:
        weights = _weights(folder)
    return _run_with(weights)


def _run_with(weights: str) -> Path | None:
    """The newest run whose weights have a digest, or one that begins so."""
    matching = (run for run in _runs() if weights and _weights(run / "model").startswith(weights))
    return next(matching, None)


def _weights(folder: Path) -> str:
    """The digest that a bundle says its weights have; '' where it says none."""
    with suppress(OSError, ValueError, AttributeError):
        metadata = json.loads((folder / METADATA_FILE).read_bytes())
        return str(metadata.get("files", {}).get(WEIGHTS_FILE, ""))
    return ""


def _from_summary(run: Path) -> list[str]:
    """What an older run's summary tells, as overrides of the defaults."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        summary = json.loads((run / "summary.json").read_bytes())
        return [
            f"data.source={json.dumps(summary['data']['source'])}",
            f"tracking.experiment={json.dumps(summary['run']['experiment'])}",
            f"tracking.model_name={json.dumps(summary['artifacts']['registered_model']['name'])}",
        ]
    return []


def _registered(uri: str) -> FoundModel:
    """A version of MLflow's registry; its run's own bundle where that is still here."""
    from darkroom.tracking.registry import find_registered

    found = find_registered(uri, database=workspace() / "artifacts" / "mlflow.db")
    run = _run_with(found.bundle_version)
    return _of_run(run) if run else FoundModel(found.download(), run=None)


def _unknown(name: str) -> str:
    runs = [run.name for run in _runs()]
    hint = did_you_mean(name, among=runs)
    newest = f"; runs, the newest first: {', '.join(runs[:_RUNS_NAMED])}" if runs else ""
    return (
        f"no model bundle at {name!r:.300}, and no run of that name: {hint}name a bundle's folder "
        f"or archive, a run, or models:/NAME/VERSION{newest}"
    )
