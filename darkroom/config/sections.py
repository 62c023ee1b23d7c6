"""Words and sections that parts of the configuration share: metrics, architectures, splits."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

# --- sections ---


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )


# --- architectures ---
# The names of torchvision's classification architectures, known without importing torch.
#
# A test compares the list with the installed torchvision.

# fmt: off
ARCHITECTURES = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny",
    "densenet121", "densenet161", "densenet169", "densenet201",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
    "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s",
    "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3",
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
    "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf",
    "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf",
    "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf",
    "resnet101", "resnet152", "resnet18", "resnet34", "resnet50",
    "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "squeezenet1_0", "squeezenet1_1",
    "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t",
    "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32",
    "wide_resnet101_2", "wide_resnet50_2",
)
# fmt: on


# --- metrics ---
# The headline metrics by name, and which way each of them is better.

Metric = Literal[
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "precision_macro",
    "recall_macro",
    "log_loss",
    "calibration_error",
]
"""The headline metrics, all of them logged for each split and usable as objectives."""

Direction = Literal["maximize", "minimize"]


def natural_direction(metric: Metric) -> Direction:
    """Whether more or less of a metric is better."""
    return "minimize" if metric in ("log_loss", "calibration_error") else "maximize"


def is_better(value: float, than: float, *, metric: Metric) -> bool:
    """Whether `value` beats `than`, by the metric's natural direction."""
    return value < than if natural_direction(metric) == "minimize" else value > than


# --- compilation ---
# What a configuration may say about `compile_model`.

Engine = Literal["onnxruntime", "openvino", "openvino-bf16", "torch"]


class CompilationConfig(Section):
    """Measuring the engines that can run the network, and choosing one."""

    enabled: bool = False
    """Measure and choose after training; else ONNX Runtime runs the network."""
    engines: Annotated[tuple[Engine, ...], Field(min_length=1)] = (
        "onnxruntime",
        "openvino",
        "torch",
    )
    """Those that are measured; those that are not installed are reported."""
    objective: Literal["latency", "throughput", "memory", "size"] = "latency"
    """What decides among the engines that agree with torch."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share by which another engine has to beat onnxruntime: less is noise."""
    maximum_probability_difference: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Largest difference from torch of any probability; beyond it an engine is not eligible."""
    minimum_top1_agreement: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Smallest share of images with the class that torch gives them."""
    images: Annotated[int, Field(ge=1, le=1000)] = 64
    """Images on which engines have to agree with torch: of the validation split, or, for a
    bundle that is compiled without any, generated ones."""
    threads: PositiveInt = 1
    """Threads inside the network; a server runs one request on each core."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 5
    """Turns that each engine takes; medians count."""
    tvm: bool = False
    """Look into the network with Apache TVM too, where `make tvm` has installed it."""


# --- dataset ---

Split = Literal["train", "validation", "test"]


SPLITS: tuple[Split, ...] = get_args(Split)
