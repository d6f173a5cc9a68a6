"""The GPU's clocks, temperature and power as they are at the moment, read through NVML: nothing is set."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

SM, MEMORY = 1, 2  # nvmlClockType_t
CORE = 0  # nvmlTemperatureSensors_t


def gpu_state() -> dict[str, int]:
    """sm_mhz, memory_mhz, celsius, watts of the first GPU, those that NVML tells; empty where there is no NVML."""
    found = _device()
    if found is None:
        return {}
    nvml, device = found
    value = ctypes.c_uint()
    calls = {
        "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(device, SM, ctypes.byref(value)),
        "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(device, MEMORY, ctypes.byref(value)),
        "celsius": lambda: nvml.nvmlDeviceGetTemperature(device, CORE, ctypes.byref(value)),
        "watts": lambda: nvml.nvmlDeviceGetPowerUsage(device, ctypes.byref(value)),
    }
    state = {}
    for name, call in calls.items():
        if call() == 0:
            state[name] = value.value // 1000 if name == "watts" else value.value  # power comes in milliwatts
    return state


@cache
def _device() -> tuple[Any, Any] | None:
    try:
        nvml = ctypes.CDLL(os.environ.get("CNNENGINE_NVML", "libnvidia-ml.so.1"))
    except OSError:
        return None
    device = ctypes.c_void_p()
    if nvml.nvmlInit_v2() != 0 or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) != 0:
        return None
    return nvml, device
