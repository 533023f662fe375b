# SPDX-License-Identifier: Apache-2.0
"""Clocks and throttling of a GPU while something is timed, from NVML where the driver has it. Reads only."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

from tcc.runtime.cuda.device import Device

_REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
    0x100: "display clock",
}
_SM_CLOCK, _MEMORY_CLOCK, _TEMPERATURE = 1, 2, 0


@dataclass(frozen=True)
class State:
    """SM and memory clock in MHz, temperature in degrees Celsius, reasons for a clock below the highest."""

    sm_clock: int
    memory_clock: int
    temperature: int
    reasons: tuple[str, ...]


@functools.cache
def _library() -> Any:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


def state(device: Device) -> State | None:
    """The state of a GPU now; None where NVML is not there or does not know the device."""
    library = _library()
    if library is None:
        return None
    uuid = device.uuid
    name = f"GPU-{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}"
    handle = ctypes.c_void_p()
    if library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle)) != 0:
        return None
    sm, memory, temperature, reasons = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint(), ctypes.c_ulonglong()
    failed = (
        library.nvmlDeviceGetClockInfo(handle, _SM_CLOCK, ctypes.byref(sm))
        or library.nvmlDeviceGetClockInfo(handle, _MEMORY_CLOCK, ctypes.byref(memory))
        or library.nvmlDeviceGetTemperature(handle, _TEMPERATURE, ctypes.byref(temperature))
        or library.nvmlDeviceGetCurrentClocksThrottleReasons(handle, ctypes.byref(reasons))
    )
    if failed:
        return None
    found = tuple(text for bit, text in _REASONS.items() if reasons.value & bit)
    return State(sm.value, memory.value, temperature.value, found)
