"""Build a classification network; say what of it is trained.

The network is torchvision's, made with as many outputs as there are classes. Weights from
elsewhere are then laid over it (weights.py), all but the head's where the classes differ
in number.
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
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook
from torchvision.models import get_model, get_model_weights
from torchvision.models.vision_transformer import interpolate_embeddings

from darkroom.base.errors import UserError
from darkroom.base.files import atomic_path
from darkroom.config.sections import ARCHITECTURES
from darkroom.models.bundle import WEIGHTS_FILE, open_bundle, read_metadata

# --- weights ---
# Weights as files: saving, loading, and laying pretrained ones over a new network.
#
# safetensors throughout; the only pickles read are torchvision's own downloads, by torch's
# loader that admits nothing but tensors.

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

    Args:
        state: pretrained tensors by name; those that the model lacks are passed over.
        head: name of the classification layer in the model.
        source: what the user gave as weights, for the message of the error.

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


# --- network ---

_INCEPTION: dict[str, object] = {
    "aux_logits": False,
    "init_weights": True,
    # The ImageNet weights expect it and a state_dict does not tell, so it is always on.
    "transform_input": True,
}


def build_model(
    architecture: str,
    *,
    classes: int,
    weights: str = "none",
    fine_tune: str = "all",
    image_size: int = 224,
    seed: int,
) -> nn.Module:
    """One of torchvision's classification networks with `classes` outputs.

    Args:
        architecture: torchvision's name, such as 'resnet18'.
        classes: number of outputs; (N, 3, S, S) floats go in, (N, classes) logits come out.
        weights: 'imagenet', 'none', or the path of a bundle or a .safetensors file.
        fine_tune: 'all', or 'head' to freeze everything but the classification layer.
        image_size: S, in pixels.
        seed: of the initial weights; torch's global generator is left as it was.

    Raises:
        UserError: unknown architecture, an image size that it cannot work on, or weights
            that are unavailable, unreadable or of another architecture.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}"
        )
    model = _initialised(architecture, classes=classes, image_size=image_size, seed=seed)
    head = head_name(model, classes=classes)
    if weights != "none":
        state = pretrained_state(weights, architecture=architecture)
        transfer(state, model=model, head=head, source=weights)
    if fine_tune == "head":
        _freeze_all_but(model, head)
    return model


def head_name(model: nn.Module, *, classes: int) -> str:
    """The dotted name of the classification layer: the last one with `classes` outputs.

    A Linear in every torchvision network but SqueezeNet, which has a Conv2d.
    """
    names: list[str] = [name for name, layer in model.named_modules() if _outputs(layer) == classes]
    if not names:
        raise ValueError(f"{type(model).__name__} has no layer with {classes} outputs")
    return names[-1]


def set_training_mode(model: nn.Module) -> None:
    """`model.train()`, but frozen batch-norm layers stay in eval mode.

    In training mode a frozen layer would still drift: its running mean and variance are
    no parameters.
    """
    model.train()
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and not layer.weight.requires_grad:
            layer.eval()


def has_active_batch_norm(model: nn.Module) -> bool:
    """Whether some batch-norm layer will compute statistics of the batch in training."""
    return any(
        isinstance(layer, _BatchNorm) and layer.weight.requires_grad for layer in model.modules()
    )


def has_stride_beyond_input(model: nn.Module, *, image_size: int) -> bool:
    """Whether some convolution strides further than its input extends, at this image size."""
    found = []

    def look(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(layer, nn.Conv2d):
            found.append(max(layer.stride) > min(inputs[0].shape[-2:]))

    hook = register_module_forward_pre_hook(look)
    try:
        _pass_shapes_through(model, image_size=image_size)
    finally:
        hook.remove()
    return any(found)


def _initialised(architecture: str, *, classes: int, image_size: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            options = _options(architecture, image_size=image_size)
            model: nn.Module = get_model(architecture, weights=None, num_classes=classes, **options)
            _pass_shapes_through(model, image_size=image_size)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{architecture} cannot work on images of {image_size} pixels "
                f"({' '.join(str(error).split())}): choose another model.image_size, "
                "224 suits every architecture, or another model.architecture"
            ) from error
    return model


def _options(architecture: str, *, image_size: int) -> dict[str, object]:
    """What a builder has to be told beside the number of classes."""
    if architecture in ("googlenet", "inception_v3"):
        return _INCEPTION
    if architecture.startswith("vit_"):
        return {"image_size": image_size}
    if architecture.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def _pass_shapes_through(model: nn.Module, *, image_size: int) -> None:
    """Run the forward pass on shapes alone, without computing anything."""
    state = {
        name: tensor.to("meta")
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }
    images = torch.empty((1, 3, image_size, image_size), device="meta")
    with torch.no_grad():
        functional_call(model.eval(), state, (images,))


def _outputs(layer: nn.Module) -> int | None:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d) else None


def _freeze_all_but(model: nn.Module, head: str) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}."))
