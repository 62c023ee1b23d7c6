"""`python run.py deploy`: bundles that are there already, on an endpoint that stays."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from commands.deploy_order import Deployed, DeploymentSpec
from commands.models import find_model, why_not_deployed
from darkroom.backends.endpoint import Expectation, files_to_send
from darkroom.base.errors import UserError
from darkroom.base.files import workspace
from darkroom.base.locks import in_use
from darkroom.base.progress import terminal_progress
from darkroom.data.inputs import images_of, look_at
from darkroom.models.bundle import Bundle, open_bundle, read_bundle
from darkroom.models.prediction import Predictor
from darkroom.serving.model_names import ModelNames

# --- deploy expectations ---
# What models answer on this machine, to compare what an endpoint answers with.

_MAX_IMAGES = 32
"""As many as a deployment of a pipeline is checked with."""


@contextmanager
def expectations(
    bundles: Mapping[str, Bundle], *, folder: Path | None
) -> Iterator[dict[str, Expectation]]:
    """What each model says to the same images, which lie where it names them during the block.

    Args:
        folder: with images; None: the picture that the bundle carries, if it has one.

    Raises:
        UserError: the folder holds no images, or one that cannot be used.
    """
    images = _images_in(folder) if folder else []
    with TemporaryDirectory(prefix="darkroom-check-") as scratch, ExitStack() as stack:
        yield {
            name: expectation
            for name, bundle in bundles.items()
            if (
                expectation := _expectation(
                    bundle, images=images, scratch=Path(scratch), stack=stack
                )
            )
        }


def _expectation(
    bundle: Bundle, *, images: list[Path], scratch: Path, stack: ExitStack
) -> Expectation | None:
    metadata = bundle.metadata
    if images:
        probabilities = Predictor.load(bundle.folder).predict(images)
        sent = stack.enter_context(files_to_send(images, preprocessing=metadata.preprocessing))
        return Expectation(sent, probabilities=probabilities, classes=metadata.classes)
    if metadata.parity is None:
        return None
    picture = scratch / f"{metadata.version}.jpg"
    picture.write_bytes(metadata.parity.encoded)
    row = np.asarray([metadata.parity.probabilities], dtype=np.float32)
    return Expectation([picture], probabilities=row, classes=metadata.classes)


def _images_in(folder: Path) -> list[Path]:
    """Some of all that lie there, from the first to the last."""
    found = [each.content for each in images_of(look_at([str(folder)]))]
    paths = [content for content in found if isinstance(content, Path)]
    if not paths:
        raise UserError(f"--check {str(folder)!r} holds no images; name a folder with some")
    count = min(len(paths), _MAX_IMAGES)
    return [paths[position * len(paths) // count] for position in range(count)]


# --- deploy ---


def deploy_models(
    *,
    models: Sequence[str],
    name: str | None,
    stack: str,
    config: Path | None,
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
    with ExitStack() as opened:
        opened.enter_context(in_use(workspace(), progress=terminal_progress()))
        found = {name: find_model(text) for name, text in named_models(models).items()}
        for each in found.values():
            if each.run and (reason := why_not_deployed(each.run)):
                click.echo(
                    f"Run {each.run.name} itself did not deploy this model: {reason}.", err=True
                )
        named = [f"sagemaker.hosting.name={name}"] if name else []
        # The first one's, where several come from different runs; --name and --set differ from it.
        first = next(iter(found.values()))
        settings = first.settings(config=config, overrides=[*overrides, *named])
        bundles = {
            model: read_bundle(opened.enter_context(open_bundle(each.path)))
            for model, each in found.items()
        }
        order = DeploymentSpec(
            bundles=bundles,
            name=settings.sagemaker.hosting.name or settings.tracking.model_name,
            config=settings,
            expected=opened.enter_context(expectations(bundles, folder=check)),
            run=f"deploy-{time.strftime('%Y%m%d-%H%M%S')}",
        )
        deployed = _deploy(order, stack=stack)
    if deployed.name != order.name:
        click.echo(f"The name {order.name!r} is another endpoint's: this one is {deployed.name!r}.")
    _report(deployed, is_picture=check is None)


def named_models(models: Sequence[str]) -> dict[str, str | None]:
    """What the user wrote for each model by its name; one without a name is alone and has "".

    Raises:
        UserError: several without names, a name twice, or one that is no name.
    """
    if not models:
        return {"": None}
    pairs = [_pair(text) for text in models]
    nameless = [text for name, text in pairs if not name]
    if nameless and len(pairs) > 1:
        raise UserError(
            f"several models need names, as in `dogs={nameless[0]}`; "
            f"without one: {', '.join(map(repr, nameless))}"
        )
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two models have the name {', '.join(map(repr, twice))}")
    return dict(pairs)


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or Path(text).expanduser().exists():
        return "", text
    ModelNames(Path()).check(name)
    return name, path


def _deploy(order: DeploymentSpec, *, stack: str) -> Deployed:
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
