"""`python run.py deploy`: bundles that are there already, on an endpoint that stays."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from commands.deploy_expectations import expectations
from commands.deploy_order import Deployed, Order
from commands.newest import model_path
from darkroom.config.loading import load_config
from darkroom.errors import UserError
from darkroom.model.bundle import open_bundle, read_bundle
from darkroom.serving.model_names import ModelNames


def deploy_models(
    *,
    models: Sequence[str],
    name: str | None,
    stack: str,
    config: Path,
    overrides: Sequence[str],
    check: Path | None,
) -> None:
    """Deploy one bundle, or several behind one endpoint; compare their answers; say how to ask.

    Args:
        models: `BUNDLE`, or `NAME=BUNDLE` for each of several; none: the newest run's.
        check: folder of images that the endpoint and this machine both classify; None: the
            picture that each bundle carries for this.

    Raises:
        UserError: names, bundles, configuration or account have to change.
        EndpointError: it did not start, or answers differently; then it was taken back.
    """
    paths = named_models(models)
    named = [f"sagemaker.hosting.name={name}"] if name else []
    settings = load_config(config, overrides=[*overrides, *named])
    with ExitStack() as opened:
        bundles = {
            model: read_bundle(opened.enter_context(open_bundle(path)))
            for model, path in paths.items()
        }
        order = Order(
            bundles=bundles,
            name=settings.sagemaker.hosting.name or settings.tracking.model_name,
            config=settings,
            expected=opened.enter_context(expectations(bundles, folder=check)),
            run=f"deploy-{time.strftime('%Y%m%d-%H%M%S')}",
        )
        deployed = _deploy(order, stack=stack)
    _report(deployed, is_picture=check is None)


def named_models(models: Sequence[str]) -> dict[str, Path]:
    """Bundles by the names that were given; one without a name is alone, and has the name ''.

    Raises:
        UserError: several without names, a name twice, or one that is no name.
    """
    if not models:
        return {"": model_path(None)}
    pairs = [_pair(text) for text in models]
    nameless = [str(path) for name, path in pairs if not name]
    if nameless and len(pairs) > 1:
        raise UserError(
            f"several models need names, as in `dogs={nameless[0]}`; "
            f"without one: {', '.join(map(repr, nameless))}"
        )
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two models have the name {', '.join(map(repr, twice))}")
    return dict(pairs)


def _pair(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or Path(text).expanduser().exists():
        return "", model_path(text)
    ModelNames(Path()).check(name)
    return name, model_path(path)


def _deploy(order: Order, *, stack: str) -> Deployed:
    if stack == "local":
        from commands.deploy_locally import deploy_locally

        return deploy_locally(order)
    from commands.deploy_remotely import deploy_remotely

    return deploy_remotely(order, stack=stack)


def _report(deployed: Deployed, *, is_picture: bool) -> None:
    click.echo(f"{deployed.name} serves {deployed.where}")
    for model, check in deployed.checks.items():
        images = "its own picture" if is_picture else f"{check.images} images"
        click.echo(
            f"  {model or 'the model'}: answers as here to {images} (largest difference of a "
            f"probability {check.maximum_difference:.1g}, {check.latency_ms_p50:.1f} ms)"
        )
    if not deployed.checks:
        click.echo("  not checked: its bundle carries no picture; give --check FOLDER")
    for hint in deployed.hints:
        click.echo(f"  {hint}")
