"""Build a classification network; say what of it is trained.

The network is torchvision's, made with as many outputs as there are classes. Weights from
elsewhere are then laid over it (weights.py), all but the head's where the classes differ
in number.
"""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook
from torchvision.models import get_model

from darkroom.config.architectures import ARCHITECTURES
from darkroom.errors import UserError
from darkroom.model.weights import pretrained_state, transfer

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
