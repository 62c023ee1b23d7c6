"""What a configuration may say about `compile_model`."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from darkroom.config.sections import Section

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
