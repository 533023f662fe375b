# SPDX-License-Identifier: Apache-2.0
"""tcc as a backend of the onnx package (`onnx.backend.base.Backend`).

    import tcc.backend
    rep = tcc.backend.prepare(onnx.load("model.onnx"), "CPU")
    outputs = rep.run([x])

A model whose shapes the caller decides (free dims, or inputs that hold axes, sizes and pads) is compiled when it is
run, once for each set of shapes and of such values: see `tcc.compile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from tcc.compiler.api import compile
from tcc.compiler.frontend.functions import Functions
from tcc.compiler.frontend.survey import check_operators
from tcc.compiler.targets import gpu_target
from tcc.errors import InputError
from tcc.runtime.engine import Engine
from tcc.runtime.specialise import SpecialisingEngine


class TccRep(BackendRep):
    """A model ready to run. `device`: of `TccBackend`; `options`: those of `tcc.compile`."""

    def __init__(self, model: onnx.ModelProto, device: str, options: Mapping[str, Any]) -> None:
        self.outputs = [o.name for o in model.graph.output]
        self._gpu = _gpu_number(device)
        target = "cpu" if self._gpu is None else _gpu_target(device, self._gpu)
        with self._active():
            self.engine = compile(model, **{"target": target, **options})

    @property
    def engines(self) -> list[Engine]:
        """The engines compiled so far."""
        return self.engine.engines if isinstance(self.engine, SpecialisingEngine) else [self.engine]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, in order, as a named tuple. `inputs`: arrays in order, or by name.

        Raises InputError for inputs that do not fit the model, and for a model that cannot be compiled for them.
        """
        if not isinstance(inputs, Mapping | list | tuple):
            inputs = [inputs]
        with self._active():
            results = self.engine.run(_arrays(inputs))
        return namedtupledict("Outputs", self.outputs)(*(results[n] for n in self.outputs))

    def _active(self) -> AbstractContextManager[Any]:
        if self._gpu is None:
            return nullcontext()
        from tcc.runtime.cuda.device import current_gpu

        return current_gpu(self._gpu).active()


def _arrays(inputs: Any) -> Any:
    """Inputs with numbers as arrays, so that plain Python values are taken too; all else as it is."""
    if isinstance(inputs, Mapping):
        return {n: np.asarray(v) if isinstance(v, int | float | bool) else v for n, v in inputs.items()}
    return [np.asarray(v) if isinstance(v, int | float | bool) else v for v in inputs]


class TccBackend(Backend):
    """onnx's backend interface. `device` is CPU, CUDA or CUDA:0; keyword options are those of `tcc.compile`."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether tcc knows the operators of the model and can use the device."""
        try:
            check_operators(model, Functions(model))
        except InputError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> TccRep:
        """Compile the model, or get it ready for the first call where inputs decide its shapes.

        Raises InputError for a model or a device that tcc does not take.
        """
        return TccRep(model, device, {"opt_level": 1, **kwargs})

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """The outputs of one node on arrays in the order of its inputs. `opset_version`: of ai.onnx, newest if none."""
        values = dict(zip([i for i in node.input if i], map(np.asarray, inputs), strict=True))
        infos = [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in values.items()
        ]
        outputs = [onnx.ValueInfoProto(name=o) for o in node.output if o]
        version = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        graph = onnx.helper.make_graph([node], node.op_type, infos, outputs)
        imports = [onnx.helper.make_opsetid("", version)]
        if node.domain:
            imports.append(onnx.helper.make_opsetid(node.domain, 1))
        model = onnx.helper.make_model(graph, opset_imports=imports)
        return cls.prepare(model, device, **kwargs).run(values)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether engines for the device can run here."""
        try:
            number = _gpu_number(device)
        except InputError:
            return False
        return number is None or gpu_target(number) is not None


def _gpu_number(device: str) -> int | None:
    """The number of the GPU that a device names, None for the CPU; InputError for another device."""
    try:
        named = Device(device)
    except (AttributeError, ValueError):
        raise InputError(f"the device is CPU, CUDA or CUDA:0, not {device!r}") from None
    return None if named.type == DeviceType.CPU else named.device_id


def _gpu_target(device: str, number: int) -> str:
    target = gpu_target(number)
    if target is None:
        raise InputError(f"the device {device} is asked for, and there is no such NVIDIA GPU here; use CPU")
    return target.name


is_compatible = TccBackend.is_compatible
prepare = TccBackend.prepare
run_model = TccBackend.run_model
run_node = TccBackend.run_node
supports_device = TccBackend.supports_device
