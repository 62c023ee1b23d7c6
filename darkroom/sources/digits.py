"""The embedded default: scikit-learn's 1,797 handwritten digits as a folder of PNG files."""

from importlib.metadata import version
from pathlib import Path

from PIL import Image

from darkroom.files import atomic_path
from darkroom.sources.hashing import keep_folder

_LARGEST_VALUE = 16


def digits_version() -> str:
    """What changes when the digits might: the version of scikit-learn."""
    return version("scikit-learn")


def write_digits(store: Path) -> Path:
    """The folder `store/digits-<version>` with `<0…9>/NNNN.png`, written when missing or changed.

    Images are 8×8 pixels, 8-bit grey; scikit-learn's values 0…16 become 0…255. NNNN is
    the position in scikit-learn's order.
    """
    folder = store / f"digits-{digits_version()}"

    def make() -> None:
        with atomic_path(folder) as temporary:
            _write_images(temporary)

    keep_folder(folder, store=store, make=make)
    return folder


def _write_images(folder: Path) -> None:
    from sklearn.datasets import load_digits  # takes seconds to import

    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    scaled = (digits.images * (255 / _LARGEST_VALUE)).round().astype("uint8")
    for position, (pixels, label) in enumerate(zip(scaled, digits.target, strict=True)):
        Image.fromarray(pixels).save(folder / str(label) / f"{position:04d}.png")
