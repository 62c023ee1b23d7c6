"""`python run.py`: run the training pipeline on a stack and show the result."""

import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console

from commands.runs import close_killed_runs
from commands.settings import Settings, settings_to_train
from commands.source_name import short_name
from commands.where import ready
from darkroom.backends.storage.ingestion import describe_source, source_version
from darkroom.backends.storage.weights import rules_version, weights_version
from darkroom.base.errors import UserError
from darkroom.base.files import workspace, write_text
from darkroom.base.locks import Use, alone, in_use
from darkroom.base.progress import terminal_progress
from darkroom.config import Config
from darkroom.config.consistency import ineffective_settings, managed_problems
from darkroom.config.loader import config_digest
from darkroom.config.sagemaker import Placement
from darkroom.data.listing import Listing
from darkroom.data.source_names import parse_source
from darkroom.debugging.diagnosis import diagnosis_problems, moved_rule_problems
from darkroom.runs.summary import Summary, write_summary
from darkroom.runs.summary_table import render
from stacks.environment import CHECKOUT

_DOING = "works on the same"

if TYPE_CHECKING:
    from rich.console import RenderableType
    from zenml.models import PipelineRunResponse

    from rehearsal.session import StandIn


def run_training(
    *,
    stack: str,
    config: Path | None,
    data: str | None,
    overrides: Sequence[str],
    summary: Path | None,
    keep_endpoint: bool,
    no_cache: bool,
    faults: Sequence[str],
) -> None:
    """Run the main job.

    Raises:
        UserError: configuration, data or options have to change.
        DarkroomError: a component failed.
    """
    _check_writable(summary)
    with in_use(workspace(), progress=terminal_progress()) as use:
        chosen = _settings(config=config, data=data, overrides=overrides, stack=stack)
        version = _early_version(chosen.config, stack=stack, fresh=no_cache, listing=chosen.listing)
        chosen = replace(chosen, listing=None)  # of hundreds of thousands of files, perhaps
        _tell(chosen)
        with ready(stack, faults=faults) as stand_in:
            try:
                result = _run_alone(
                    chosen,
                    use=use,
                    version=version,
                    stack=stack,
                    stays=stand_in is None or stand_in.pid != os.getpid(),
                    keep_endpoint=keep_endpoint,
                    no_cache=no_cache,
                )
            finally:
                report = _report(stand_in)
            if summary:
                write_summary(result, summary)
            Console().print(render(result), soft_wrap=True)
            if report:
                Console().print(report, soft_wrap=True)


def _settings(
    *, config: Path | None, data: str | None, overrides: Sequence[str], stack: str
) -> Settings:
    """What to train by, without a problem that shows before the data are read."""
    chosen = settings_to_train(
        config=config, data=data, overrides=overrides, stack=stack, progress=terminal_progress()
    )
    settings = chosen.config
    problems = diagnosis_problems(settings.diagnosis) + _remote_problems(settings, stack=stack)
    if settings.model.weights == "imagenet":  # before the images are looked at for an hour
        from darkroom.training.requirements import weights_problems  # imports torch

        problems += weights_problems(settings, stack=stack)
    if problems:
        raise UserError(_source_problems(settings) + problems)
    return chosen


def _tell(chosen: Settings) -> None:
    """Say what was chosen for the user."""
    if not chosen.told:
        return
    progress = terminal_progress()
    progress.message(f"Settings: {chosen.origin}; change any with --set, or write a --config:")
    for line in chosen.told:
        progress.message(line)


def _run_alone(
    chosen: Settings,
    *,
    use: Use,
    version: str | None,
    stack: str,
    stays: bool,
    keep_endpoint: bool,
    no_cache: bool,
) -> Summary:
    """Run while no equal run does on this machine: the others find its results done."""
    settings, progress = chosen.config, terminal_progress()
    name = _run_name(settings)
    progress.message(f"Run {name} on stack {stack}")
    for line in ineffective_settings(settings, stack=stack, chosen=chosen.chosen):
        progress.message(line)
    with ExitStack() as held:
        if stack == "local":
            lock = _lock_of(settings, version=version or "")
            held.enter_context(alone(lock, doing=_DOING, name=name, progress=progress))
            close_killed_runs()
            use.has_name(name)
        return _run(
            settings,
            early_version=version,
            name=name,
            stack=stack,
            stays=stays,
            keep_endpoint=keep_endpoint,
            no_cache=no_cache,
        )


def _run(
    settings: Config,
    *,
    early_version: str | None,
    name: str,
    stack: str,
    stays: bool,
    keep_endpoint: bool,
    no_cache: bool,
) -> Summary:
    versions = _file_versions(settings)
    staged = _staged(settings, stack=stack)
    version = _version_of(staged, early=early_version, source=settings.data.source)
    begun = _begun(settings, version=version) if no_cache else None
    placement = _placement(settings, stack=stack, begun=begun, name=name)
    # ZenML takes seconds to import: only once the input is known to be good.
    from stacks.loader import use_stack
    from stacks.stores import database_errors_explained

    use_stack(stack)
    from commands.outcome import conclude, conclude_failed
    from pipelines.training import training_pipeline

    os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "false"  # the final training alone

    def start(tag: str | None = None) -> "PipelineRunResponse | None":
        return training_pipeline.with_options(
            run_name=name,
            enable_cache=not no_cache,
            tags=[tag] if tag else None,
            **_options(settings, name=name, placement=placement),
        )(
            config=staged,
            source_version=version,
            keep_endpoint=keep_endpoint,
            placement=placement,
            **versions,
        )

    with database_errors_explained(workspace()):
        try:
            if placement.jobs is None:
                run = start()
            else:
                from commands.remote_run import run_remotely

                options = {"keep_endpoint": keep_endpoint, "no_cache": no_cache}
                run = run_remotely(
                    start,
                    config=staged,
                    source_version=" ".join([version, *versions.values()]),
                    options=options,
                    stays=stays,
                )
        except BaseException as error:
            with suppress(Exception):  # what ended the run must not be lost
                page = conclude_failed(
                    name, config=settings, stack=stack, started=_process_started(), error=error
                )
                if page:
                    terminal_progress().message(f"What came of it: {page}")
            raise
        result = conclude(run, config=settings, stack=stack, started=_process_started())
        if begun:
            begun.unlink(missing_ok=True)
        return result


def _lock_of(config: Config, *, version: str) -> Path:
    """Held by the one of several equal runs that works; the others find its results done."""
    return workspace() / "locks" / f"run-{_digest(config, version=version)}.lock"


def _begun(config: Config, *, version: str) -> Path:
    """Names the first start of a run without the cache, until one has succeeded."""
    return workspace() / "locks" / f"fresh-{_digest(config, version=version)}.txt"


def _digest(config: Config, *, version: str) -> str:
    """The same for the same configuration on the same data."""
    text = "\n".join([config_digest(config), version, *_file_versions(config).values()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fresh(begun: Path, *, name: str) -> str:
    """What tells the work of this run without the cache from that of earlier runs.

    The same command after it has died, or its orchestrating job has, finds what it had done.
    """
    try:
        found = begun.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        write_text(begun, name)
        return name
    terminal_progress().message(
        f"--no-cache: an earlier start of this command ({found}) did not come to its end; what "
        f"it had begun (jobs, checkpoints, trials) goes on. Remove {begun} to start all anew"
    )
    return found


def _remote_problems(config: Config, *, stack: str) -> list[str]:
    if stack == "local":
        return []
    moved = moved_rule_problems(config.diagnosis, checkout=CHECKOUT)
    return managed_problems(config) + moved


def _source_problems(config: Config) -> list[str]:
    """What is wrong with images on this machine, as far as it shows without reading them all."""
    try:
        if parse_source(config.data.source).kind == "path":
            describe_source(config.data.source, config=config.data, seed=config.training.seed)
    except UserError as error:
        return error.problems
    return []


def _early_version(
    config: Config, *, stack: str, fresh: bool = False, listing: Listing | None = None
) -> str | None:
    """The source's version, before anything is started; None where only the stack can tell.

    A remote stack decides which account, or which stand-in for one, s3:// is looked up in.
    """
    if stack != "local" and parse_source(config.data.source).kind == "s3":
        return None
    return source_version(
        config.data.source,
        config=config.data,
        fresh=fresh,
        listing=listing,
        progress=terminal_progress(),
    )


def _version_of(staged: Config, *, early: str | None, source: str) -> str:
    """The version of the source as it was staged; `early` is that of `source`."""
    if early is not None and staged.data.source == source:
        return early
    return source_version(staged.data.source, config=staged.data)


def _file_versions(config: Config) -> dict[str, str]:
    """Of the files that the configuration names beside its data."""
    store = workspace() / "data"
    return {
        "weights_version": weights_version(config.model.weights, store=store),
        "rules_version": rules_version(config.diagnosis, store=store),
    }


def _report(stand_in: "StandIn | None") -> "RenderableType | None":
    """What a rehearsal was; none where the stand-in is gone, which has its own error."""
    if stand_in is None:
        return None
    from rehearsal.report import write_report

    with suppress(OSError):
        return write_report(stand_in)
    return None


def _staged(config: Config, *, stack: str) -> Config:
    """With images and weights that are reachable from where the pipeline runs."""
    if stack == "local":
        return config
    from darkroom.backends.storage.weights import stage_source, stage_weights

    root, progress = os.environ["DARKROOM_S3_ROOT"].rstrip("/"), terminal_progress()
    key = config.sagemaker.kms_key
    weights = stage_weights(config.model.weights, root=root, kms_key=key, progress=progress)
    source = stage_source(config, root=root, progress=progress)
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"source": source}),
            "model": config.model.model_copy(update={"weights": weights}),
        }
    )


def _placement(config: Config, *, stack: str, begun: Path | None, name: str) -> Placement:
    jobs = None if stack == "local" else config.sagemaker
    if begun is None:
        return Placement(jobs=jobs)
    fresh = _fresh(begun, name=name)
    return Placement(jobs=jobs, fresh=fresh, fresh_since=begun.stat().st_mtime)


def _options(config: Config, *, name: str, placement: Placement) -> dict[str, Any]:
    """Of the pipeline, beside its name and whether it is cached."""
    tracking = config.tracking
    tracker = {"experiment_name": tracking.experiment, "tags": tracking.tags}
    if placement.jobs is None:
        return {"settings": {"experiment_tracker": tracker}}
    from stacks.orchestration import remote_options

    options = remote_options(placement.jobs, run=name)
    options["settings"]["experiment_tracker"] = tracker
    return options


def _run_name(config: Config) -> str:
    moment = time.strftime("%Y%m%d-%H%M%S")
    source = short_name(config.data.source)
    return f"{source}-{config.model.architecture}-{moment}-{secrets.token_hex(2)}"


def _process_started() -> float:
    return float(psutil.Process().create_time())


def _check_writable(summary: Path | None) -> None:
    """Refuse before the work what could only fail after it."""
    if summary and (summary.is_dir() or not os.access(summary.absolute().parent, os.W_OK)):
        raise UserError(
            f"--summary {str(summary)!r} cannot be written: "
            "name a file in an existing folder that you may write to"
        )
