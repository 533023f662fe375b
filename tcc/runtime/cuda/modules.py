# SPDX-License-Identifier: Apache-2.0
"""Loading an engine's cubins, each distinct one once, and finding the kernels in them."""

from __future__ import annotations

import weakref
from typing import Any

from tcc.errors import FailureError
from tcc.runtime.container import EngineData
from tcc.runtime.cuda.device import Gpu
from tcc.runtime.cuda.driver import api, failure, let_go
from tcc.runtime.cuda.launch import Kernel


class Modules:
    """The kernels of an engine by id, on one GPU; their code is unloaded when this goes."""

    def __init__(self, gpu: Gpu, data: EngineData) -> None:
        self.kernels: dict[str, Kernel] = {}
        loaded: dict[str, Any] = {}
        self._finalizer = weakref.finalize(self, _unload, gpu, loaded)
        self._finalizer.atexit = False
        for name, facts in data.kernels.items():
            entry = facts["files"]["binary"]
            if entry not in loaded:
                loaded[entry] = _load(gpu, data, entry)
            status, function = api().cuModuleGetFunction(loaded[entry], facts["entry"].encode())
            if status:
                if status.name == "CUDA_ERROR_NOT_FOUND":
                    raise FailureError(f"the engine's {entry} holds no kernel '{facts['entry']}': build it again.")
                raise failure(status, f"find the kernel {facts['entry']}")
            self.kernels[name] = Kernel(gpu, name, function)


def _load(gpu: Gpu, data: EngineData, entry: str) -> Any:
    status, module = api().cuModuleLoadData(bytes(data.entry(entry)))
    if not status:
        return module
    if status.name == "CUDA_ERROR_NO_BINARY_FOR_GPU":
        raise FailureError(
            f"the engine's {entry} is not built for {gpu.device.name} ({gpu.device.arch}): compile the model with "
            f"--target {gpu.device.arch}."
        )
    raise failure(status, f"load the engine's {entry}")


def _unload(gpu: Gpu, loaded: dict[str, Any]) -> None:
    with gpu.active():
        for module in loaded.values():
            let_go(api().cuModuleUnload(module), "unload a module")
