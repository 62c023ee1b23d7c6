"""Weights as files: saving, loading, and laying pretrained ones over a new network.

safetensors throughout; the only pickles read are torchvision's own downloads, by torch's
loader that admits nothing but tensors.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.vision_transformer import interpolate_embeddings

from darkroom.errors import UserError
from darkroom.files import atomic_path
from darkroom.model.bundle import WEIGHTS_FILE, open_bundle, read_metadata

_REACHED_WITHIN_SECONDS = 5
_COUNTER = "num_batches_tracked"
_POSITIONS = "encoder.pos_embedding"


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state_dict as safetensors, atomically, readable by all."""
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)
        temporary.chmod(0o644)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state_dict that `save_weights` wrote for the same network.

    Raises:
        UserError: no safetensors file, or of another network.
    """
    try:
        model.load_state_dict(read_safetensors(path))
    except RuntimeError as error:
        raise UserError(f"{str(path)!r} holds the weights of another network: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Raises:
        UserError: missing, or no safetensors file.
    """
    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{str(path)!r} is no readable safetensors file: {error}") from error
    return state


def pretrained_state(weights: str, *, architecture: str) -> Mapping[str, Tensor]:
    """The state_dict that 'imagenet', or the path of a bundle or .safetensors file, names.

    Raises:
        UserError: unavailable, unreadable, or a bundle of another architecture.
    """
    if weights == "imagenet":
        return _imagenet_state(architecture)
    path = Path(weights).expanduser()
    if not path.exists():
        raise UserError(
            f"no weights at {weights!r}: model.weights may be 'imagenet', 'none', or the path "
            "of a bundle (a folder or model.tar.gz) or of a .safetensors file"
        )
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return _bundle_state(path, architecture=architecture)


def transfer(state: Mapping[str, Tensor], *, model: nn.Module, head: str, source: str) -> None:
    """Copy pretrained tensors into `model`; a head of another shape keeps its own.

    Position embeddings of a vision transformer are interpolated to the model's image size.

    Raises:
        UserError: tensors outside the head are missing or shaped otherwise.
    """
    own = model.state_dict()
    fitting = {
        name: tensor
        for name, tensor in _at_image_size(state, model=model).items()
        if name in own and own[name].shape == tensor.shape
    }
    needed = [name for name in own if not name.startswith(f"{head}.") and _COUNTER not in name]
    missing = [name for name in needed if name not in fitting]
    if missing:
        raise UserError(
            f"the weights {source!r} are of another architecture: {len(needed) - len(missing)} "
            f"of the network's {len(needed)} tensors (its head apart) are among their "
            f"{len(state)}; missing, or of another shape: {', '.join(missing[:3])}…"
        )
    model.load_state_dict(fitting, strict=False)


def _imagenet_state(architecture: str) -> Mapping[str, Tensor]:
    weights = get_model_weights(architecture).DEFAULT
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, EOFError, BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(imagenet_unavailable(architecture, reason=_reason(error))) from error
    return state


def imagenet_problem(architecture: str) -> str | None:
    """Why torchvision's weights cannot be had, in a few words; None: its cache or the web does."""
    url = get_model_weights(architecture).DEFAULT.url
    if _cached(url).is_file():
        return None
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_REACHED_WITHIN_SECONDS):  # noqa: S310
            return None  # it is https, by torchvision
    except OSError as error:
        return _reason(error)


def imagenet_unavailable(architecture: str, *, reason: str) -> str:
    """What to do where they cannot be had."""
    url = get_model_weights(architecture).DEFAULT.url
    file = _cached(url)
    broken = "; delete that file first, it is broken" if file.exists() else ""
    return (
        f"the ImageNet weights of {architecture} are unavailable ({reason}). Either put the "
        f"file {url} at {str(file)!r} (below $TORCH_HOME/hub, if that is set){broken}; or set "
        "model.weights to 'none' to train from scratch, or to the path of a bundle or of a "
        ".safetensors file"
    )


def _cached(url: str) -> Path:
    """Where torch keeps what it has fetched, or has been given."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _reason(error: Exception) -> str:
    return str(error.reason if isinstance(error, URLError) else error)


def _bundle_state(path: Path, *, architecture: str) -> Mapping[str, Tensor]:
    with open_bundle(path) as folder:
        metadata = read_metadata(folder)
        if metadata.architecture != architecture:
            raise UserError(
                f"the bundle {str(path)!r} holds a {metadata.architecture}, and "
                f"model.architecture is {architecture!r}: make them the same"
            )
        return read_safetensors(folder / WEIGHTS_FILE)


def _at_image_size(state: Mapping[str, Tensor], *, model: nn.Module) -> Mapping[str, Tensor]:
    if _POSITIONS not in state or _POSITIONS not in model.state_dict():
        return state
    adapted: Mapping[str, Tensor] = interpolate_embeddings(
        model.image_size, model.patch_size, state
    )
    return adapted
