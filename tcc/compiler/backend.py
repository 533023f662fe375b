# SPDX-License-Identifier: Apache-2.0
"""tcc as a backend of the onnx package (`onnx.backend.base.Backend`).

    import tcc.backend
    rep = tcc.backend.prepare(onnx.load("model.onnx"), "CPU")
    outputs = rep.run([x])

A model whose shapes the caller decides (free dims, or small inputs such as axes, sizes and pads) is compiled when it
is run, once for each set of shapes and of such values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from tcc.compiler.api import compile
from tcc.compiler.frontend.binding import declared_dims, real_inputs
from tcc.compiler.frontend.functions import Functions
from tcc.compiler.frontend.survey import check_operators
from tcc.errors import InputError
from tcc.runtime.engine import Engine

SMALL = 64
"""Inputs of rank 0 or 1 with at most so many elements may decide shapes."""

Array = np.ndarray[Any, Any]


class TccRep(BackendRep):
    """A model ready to run. `options`: those of `tcc.compile`."""

    def __init__(self, model: onnx.ModelProto, target: str, options: Mapping[str, Any]) -> None:
        self.model = model
        self.target = target
        self.options = dict(options)
        self.shapes: dict[str, Sequence[int]] = dict(self.options.pop("shapes", None) or {})
        self.names = [i.name for i in real_inputs(model)]
        self.outputs = [o.name for o in model.graph.output]
        self._engines: dict[Any, tuple[Engine, frozenset[str]]] = {}
        self._fixed: Engine | None = None
        try:
            self._fixed = compile(model, target=target, shapes=self.shapes, **self.options)
        except InputError:
            if not any(_decides_shapes(i) for i in real_inputs(model)):
                raise

    @property
    def engines(self) -> list[Engine]:
        """The engines compiled so far."""
        return [e for e in (self._fixed, *(e for e, _ in self._engines.values())) if e is not None]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, in order, as a named tuple. `inputs`: arrays in order, or by name.

        Raises InputError for inputs that do not fit the model, and for a model that cannot be compiled.
        """
        feed = self._feed(inputs)
        engine, held = self._engine(feed)
        results = engine({n: a for n, a in feed.items() if n not in held})
        return namedtupledict("Outputs", self.outputs)(*(results[n] for n in self.outputs))

    def _feed(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            given = dict(inputs)
        else:
            values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
            if len(values) != len(self.names):
                raise InputError(
                    f"{len(values)} inputs are given and the model takes {len(self.names)}: {', '.join(self.names)}"
                )
            given = dict(zip(self.names, values, strict=True))
        return {n: v if v is None or isinstance(v, list | tuple) else np.asarray(v) for n, v in given.items()}

    def _engine(self, feed: Mapping[str, Any]) -> tuple[Engine, frozenset[str]]:
        if self._fixed is not None:
            return self._fixed, frozenset()
        small = [n for n, a in feed.items() if _is_small(a)]
        key = tuple((n, _form(a), np.asarray(a).tobytes() if n in small else b"") for n, a in feed.items())
        if key not in self._engines:
            self._engines[key] = self._specialise(feed, small)
        return self._engines[key]

    def _specialise(self, feed: Mapping[str, Any], small: Sequence[str]) -> tuple[Engine, frozenset[str]]:
        """An engine for the shapes of these inputs, and for the values of the small ones where they decide shapes."""
        shapes = {n: _form(a) for n, a in feed.items()}
        try:
            return compile(self.model, target=self.target, shapes=shapes, **self.options), frozenset()
        except InputError:
            if not small:
                raise
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.initializer.extend(numpy_helper.from_array(feed[n], n) for n in small)
        rest = {n: s for n, s in shapes.items() if n not in small}
        return compile(model, target=self.target, shapes=rest, **self.options), frozenset(small)


def _decides_shapes(info: onnx.ValueInfoProto) -> bool:
    """Whether an input has free dims, may hold axes, sizes or the like, or is a sequence or an optional."""
    if not info.type.HasField("tensor_type"):
        return True
    dims = declared_dims(info)
    return dims is None or len(dims) <= 1 or not all(isinstance(d, int) for d in dims)


def _is_small(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim <= 1 and value.size <= SMALL and value.dtype.kind not in "OUST"


def _form(value: Any) -> Any:
    """What `shapes` binds an input to: the shape of a tensor, those of a sequence's tensors, None of nothing."""
    if value is None:
        return None
    return tuple(map(_form, value)) if isinstance(value, list | tuple) else np.shape(value)


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
        return TccRep(model, _target(device), {"opt_level": 1, **kwargs})

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
            kind = Device(device).type
        except AttributeError:
            return False
        if kind == DeviceType.CPU:
            return True
        from tcc.runtime.cuda.device import devices

        return bool(devices())


def _target(device: str) -> str:
    """The target of a device of this machine."""
    try:
        kind = Device(device).type
    except AttributeError:
        raise InputError(f"the device is CPU or CUDA, not {device!r}") from None
    if kind == DeviceType.CPU:
        return "cpu"
    from tcc.runtime.cuda.device import devices

    if not devices():
        raise InputError(f"the device {device} is asked for, and there is no NVIDIA GPU here; use CPU")
    return "native"


is_compatible = TccBackend.is_compatible
prepare = TccBackend.prepare
run_model = TccBackend.run_model
run_node = TccBackend.run_node
supports_device = TccBackend.supports_device
