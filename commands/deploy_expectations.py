"""What models answer on this machine, to compare what an endpoint answers with."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from darkroom.backends.endpoint import Expectation, files_to_send
from darkroom.errors import UserError
from darkroom.inputs.finding import images_of, look_at
from darkroom.model.bundle import Bundle
from darkroom.prediction import Predictor

_MOST_IMAGES = 32
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
    count = min(len(paths), _MOST_IMAGES)
    return [paths[position * len(paths) // count] for position in range(count)]
