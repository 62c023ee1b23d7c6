"""Use of NVIDIA's GPUs, as NVML tells it."""

import os
from collections.abc import Callable, Sequence
from math import nan
from types import ModuleType

from darkroom.profiling.meters import Reading

_PERCENT = 100.0


class GpuMeter:
    """Of the GPUs that this process may see. Each reading costs a few calls of NVML.

    Raises:
        Exception: there is no GPU, no driver or no NVML.
    """

    def __init__(self) -> None:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._nvml: ModuleType = pynvml
        pynvml.nvmlInit()
        self._devices = _visible_devices(pynvml, chosen=os.environ.get("CUDA_VISIBLE_DEVICES"))

    def read(self) -> Reading:
        return {
            "gpu": [_or_nan(self._use, device) for device in self._devices],
            "gpu_memory": [_or_nan(self._memory, device) for device in self._devices],
        }

    def _use(self, device: object) -> float:
        return float(self._nvml.nvmlDeviceGetUtilizationRates(device).gpu)

    def _memory(self, device: object) -> float:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(device)
        return round(_PERCENT * int(memory.used) / int(memory.total), 2)


def _or_nan(measure: Callable[[object], float], device: object) -> float:
    """A part of a GPU (MIG) does not tell how busy it is."""
    try:
        return measure(device)
    except Exception:
        return nan


def _visible_devices(nvml: ModuleType, *, chosen: str | None) -> Sequence[object]:
    """Handles, in the order in which torch counts them."""
    if chosen is None:
        return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    devices = []
    for name in filter(None, (part.strip() for part in chosen.split(","))):
        if name.lstrip("-").isdigit():
            if int(name) < 0:  # CUDA ignores what stands behind it
                break
            devices.append(nvml.nvmlDeviceGetHandleByIndex(int(name)))
        else:
            devices.append(nvml.nvmlDeviceGetHandleByUUID(name))
    return devices
