# SPDX-License-Identifier: Apache-2.0
"""The CUDA driver API: found, initialised once, and its status codes turned into FailureErrors."""

from __future__ import annotations

import importlib
import threading
from typing import Any

from tcc.errors import FailureError

_lock = threading.Lock()
_api: Any = None

# After one of these the process's CUDA context is lost: every later call fails too.
_STICKY = frozenset(
    (
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_LAUNCH_FAILED",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        "CUDA_ERROR_INVALID_PC",
        "CUDA_ERROR_HARDWARE_STACK_ERROR",
        "CUDA_ERROR_ASSERT",
        "CUDA_ERROR_ECC_UNCORRECTABLE",
    )
)


class GpuError(FailureError):
    """A driver call failed. `code` is the driver's name of the error; `sticky` says that the CUDA context is lost."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
        self.sticky = code in _STICKY


def api() -> Any:
    """The module `cuda.bindings.driver`, after cuInit; FailureError where there is no driver or no GPU."""
    global _api
    if _api is None:
        with _lock:
            if _api is None:
                _api = _load()
    return _api


def _load() -> Any:
    try:
        module = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise FailureError(
            f"an NVIDIA GPU is needed and the Python package cuda-bindings is missing ({error})."
        ) from error
    try:
        (status,) = module.cuInit(0)
    except Exception as error:  # the loader's exception classes differ between versions of cuda-bindings
        raise FailureError(
            "an NVIDIA GPU is needed and no NVIDIA driver (libcuda) is here; use a machine with one or a CPU engine."
        ) from error
    if int(status) != 0:
        raise FailureError(
            f"an NVIDIA GPU is needed and there is none ({status.name}); use a machine with one or a CPU engine."
        )
    return module


def check(result: tuple[Any, ...], doing: str) -> Any:
    """The value (or tuple of values) in a driver call's `result`; GpuError saying what it could not do otherwise."""
    status = result[0]
    if status:
        raise failure(status, doing)
    return result[1] if len(result) == 2 else result[1:]


def let_go(result: tuple[Any, ...], doing: str) -> None:
    """GpuError as of `check`, but not where the context is lost: what was in it is gone, and the failure was told."""
    if result[0] and result[0].name not in _STICKY:
        raise failure(result[0], doing)


def failure(status: Any, doing: str) -> GpuError:
    """The error for a status code other than success."""
    code = status.name
    known, text = api().cuGetErrorString(status)
    reason = f"{code}, {text.decode()}" if not known and text else code
    way_out = "; the CUDA context is lost, so start the process again" if code in _STICKY else ""
    return GpuError(f"the GPU could not {doing}: {reason}{way_out}.", code)
