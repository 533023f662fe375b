# SPDX-License-Identifier: Apache-2.0
"""An engine as its user sees it: call it, bind it, profile it.

Memory is the caller's to reason about. A call returns fresh outputs that later calls do not touch; ``out=`` and
`Engine.bind` write straight to memory the caller gives. Inputs are never written. Two threads may call one engine:
each call has a context of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tcc.errors import FailureError, InputError
from tcc.runtime import container, host_values
from tcc.runtime.container import EngineData
from tcc.runtime.executor import Context, Executor, LaunchTime, Value, show_shape
from tcc.runtime.signature import Signature, TensorSpec

Inputs = Mapping[str, Any] | Sequence[Any]


def load(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> Engine:
    """The engine in a file (memory-mapped), or in bytes.

    Raises InputError where the file cannot be read, FailureError where it is damaged, of a newer format, or for
    another machine.
    """
    return Engine(container.read(source))


class Engine:
    """A loaded engine: ``engine({"x": x})`` or ``engine(x)`` gives a dict of outputs by name.

    Inputs are numpy arrays, or what supports DLPack or ``__cuda_array_interface__``; outputs are numpy arrays where the
    inputs are in host memory. Shapes that the engine does not cover are an InputError; `SpecialisingEngine` makes other
    engines for them.
    """

    def __init__(self, data: EngineData) -> None:
        self.data = data
        self.executor = _executor(data)
        self._signature = Signature(data)
        self._idle: list[Context] = []
        self._direct = [data.buffers[o["buffer"]]["space"] == "output" for o in data.outputs]
        self._all_direct = all(self._direct)
        self._out_names = [o["name"] for o in data.outputs]

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.data.manifest["model"])

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each input, in order."""
        return self._signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each output, in order."""
        return self._signature.outputs

    @property
    def kernels(self) -> dict[str, dict[str, Any]]:
        """The manifest's facts on each kernel by id: template, config, files, loc."""
        return self.data.kernels

    @property
    def report(self) -> list[dict[str, Any]]:
        """What the compiler had to say: host ops, remarks."""
        return self.data.report

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights, padding included."""
        return self.data.weights_bytes

    def __repr__(self) -> str:
        wanted = ", ".join(map(str, self.inputs))
        given = ", ".join(map(str, self.outputs))
        return f"<tcc engine {self.name} for {self.data.target['name']}: ({wanted}) -> ({given})>"

    def __call__(self, *args: Any, **named: Any) -> dict[str, Any]:
        """Run on one mapping of arrays by name, on arrays in order, or on arrays by keyword."""
        if len(args) == 1 and isinstance(args[0], Mapping) and not named:
            return self.run(args[0])
        if args and named:
            raise InputError("give the inputs in order or by name, not both")
        return self.run(named or args)

    def run(self, inputs: Inputs, out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run; outputs named in `out` are written to the arrays given there and returned as those objects.

        Raises InputError naming both sides for a wrong name, dtype or shape, and for an `out` array that cannot be
        written in place or overlaps an input or another output.
        """
        values = self._accept(inputs)
        symbols = self._signature.check(values)
        given = self._accept_out(out, values) if out else {}
        outputs = self._memory(values, symbols, given)
        context = self._take()
        try:
            context.run(values, outputs, symbols)
            if not self._all_direct:
                self._results(context, values, outputs, given)
        finally:
            self._idle.append(context)
        deliver = self.executor.deliver
        results = {name: deliver(value) for name, value in zip(self._out_names, outputs, strict=True)}  # type: ignore[arg-type]
        if out:
            results.update(out)
        return results

    def bind(self, inputs: Inputs, outputs: Mapping[str, Any] | None = None) -> BoundCall:
        """A call on fixed memory: nothing is copied or allocated when it runs, new values are written into the input
        arrays.

        Outputs without an array in `outputs` get one here. Raises InputError as `run` does, and for an input that
        would have to be copied.
        """
        values = self._accept(inputs)
        for spec, value, original in zip(self.inputs, values, self._ordered(inputs), strict=True):
            if (
                spec.type is None
                and value.owner is not original
                and not _shares(value, original, self.executor, spec.name)
            ):
                raise InputError(
                    f"the input '{spec.name}' is not contiguous and cannot be bound: make it contiguous first"
                )
        symbols = self._signature.check(values)
        given = self._accept_out(outputs, values) if outputs else {}
        memory = self._memory(values, symbols, given)
        return BoundCall(self, values, memory, symbols, dict(outputs or {}), given)

    def profile(self, inputs: Inputs) -> list[LaunchTime]:
        """Run op after op and time each: one row for each launch, copy, memset and host call, with the ONNX nodes it
        comes from.
        """
        values = self._accept(inputs)
        symbols = self._signature.check(values)
        context = self._take()
        try:
            return context.profile(values, self._memory(values, symbols, {}), symbols)
        finally:
            self._idle.append(context)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the engine file, whole or not at all."""
        self.data.save(path)

    def close(self) -> None:
        """Free what the engine's contexts hold; the next call makes a new one."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Context:
        try:
            return self._idle.pop()  # atomic, as append is: no lock that a fork could leave taken
        except IndexError:
            return self.executor.context()

    def _ordered(self, inputs: Inputs) -> list[Any]:
        specs = self._signature.inputs
        if isinstance(inputs, Mapping):
            if len(inputs) == len(specs):
                try:
                    return [inputs[spec.name] for spec in specs]
                except KeyError:
                    pass
            wanted = [spec.name for spec in specs]
            unknown = [name for name in inputs if name not in wanted]
            if unknown:
                raise InputError(f"the engine has no input '{unknown[0]}'; its inputs are {', '.join(map(str, specs))}")
            absent = next(spec for spec in specs if spec.name not in inputs)
            raise InputError(f"the input {absent} is missing")
        if not isinstance(inputs, list | tuple):
            raise InputError(f"the inputs are a {type(inputs).__name__}; give a mapping by name or a list in order")
        if len(inputs) != len(specs):
            raise InputError(
                f"{len(inputs)} inputs are given and the engine takes {len(specs)}: {', '.join(map(str, specs))}"
            )
        return list(inputs)

    def _accept(self, inputs: Inputs) -> list[Value]:
        accept = self.executor.accept
        return [
            accept(v, spec.name) if spec.type is None else host_values.accept(v, spec.type, spec.name)
            for v, spec in zip(self._ordered(inputs), self._signature.inputs, strict=True)
        ]

    def _accept_out(self, out: Mapping[str, Any], inputs: Sequence[Value]) -> dict[str, Value]:
        given: dict[str, Value] = {}
        taken = [(f"the input '{spec.name}'", value) for spec, value in zip(self.inputs, inputs, strict=True)]
        for name, target in out.items():
            spec = next((s for s in self.outputs if s.name == name), None)
            if spec is None:
                raise InputError(
                    f"the engine has no output '{name}'; its outputs are {', '.join(map(str, self.outputs))}"
                )
            if spec.type is not None:
                raise InputError(f"the output {spec} lives on the host and cannot be written to memory that is given")
            value = self.executor.accept_output(target, name)
            if value.dtype != spec.dtype:
                raise InputError(
                    f"the array given for the output '{name}' is {value.dtype} and the engine writes {spec.dtype}"
                )
            for label, other in taken:
                if _overlap(value, other):
                    raise InputError(f"the array given for the output '{name}' overlaps {label}")
            taken.append((f"the output '{name}'", value))
            given[name] = value
        return given

    def _memory(
        self, inputs: Sequence[Value], symbols: Mapping[str, int], given: Mapping[str, Value]
    ) -> list[Value | None]:
        """Memory for each output; None where the runtime copies it out after the run."""
        memory: list[Value | None] = []
        for i, direct in enumerate(self._direct):
            spec = self._signature.outputs[i]
            if not direct:
                memory.append(None)
                continue
            shape = self._signature.output_shape(i, symbols)
            value = given.get(spec.name)
            if value is None:
                value = self.executor.empty(spec.dtype, shape, inputs)
            elif value.shape != shape:
                raise InputError(
                    f"the array given for the output '{spec.name}' has the shape {show_shape(value.shape)} "
                    f"and the engine writes {show_shape(shape)}"
                )
            memory.append(value)
        return memory

    def _results(
        self, context: Context, inputs: Sequence[Value], outputs: list[Value | None], given: Mapping[str, Value]
    ) -> None:
        for i, direct in enumerate(self._direct):
            if not direct:
                name = self._out_names[i]
                held = self.outputs[i].type is not None
                outputs[i] = context.host_result(i) if held else context.result(i, inputs, given.get(name))


class BoundCall:
    """A call on fixed inputs and outputs: ``bound()`` runs it and returns the outputs by name, the same objects every
    time.

    Calls from several threads take turns, since they would write the same memory.
    """

    def __init__(
        self,
        engine: Engine,
        inputs: list[Value],
        outputs: list[Value | None],
        symbols: dict[str, int],
        targets: dict[str, Any],
        given: dict[str, Value],
    ) -> None:
        self.engine = engine
        self._inputs, self._outputs, self._given = inputs, outputs, given
        self._context = engine.executor.context()
        self._call = self._context.bind(inputs, outputs, symbols)
        self._lock = threading.Lock()
        self._late = [i for i, value in enumerate(outputs) if value is None]
        self._targets = targets
        self.outputs: dict[str, Any] = {}
        for spec, value in zip(engine.outputs, outputs, strict=True):
            if spec.name in targets:
                self.outputs[spec.name] = targets[spec.name]
            elif value is not None:
                self.outputs[spec.name] = engine.executor.deliver(value)

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            self._call()
            if not self._late:
                return self.outputs
            for i in self._late:
                name = self.engine.outputs[i].name
                if self.engine.outputs[i].type is not None:
                    value = self._context.host_result(i)
                else:
                    value = self._context.result(i, self._inputs, self._given.get(name))
                if name not in self._targets:
                    self.outputs[name] = self.engine.executor.deliver(value)
            return self.outputs


def _executor(data: EngineData) -> Executor:
    kind = data.target["kind"]
    if kind == "cpu":
        from tcc.runtime.cpu.executor import CpuExecutor

        return CpuExecutor(data)
    if kind == "cuda":
        from tcc.runtime.cuda.executor import CudaExecutor

        return CudaExecutor(data)
    raise FailureError(f"the engine {data.name} is for a device of the kind '{kind}', which this runtime does not know")


def _overlap(a: Value, b: Value) -> bool:
    return a.device == b.device and a.pointer < b.pointer + b.nbytes and b.pointer < a.pointer + a.nbytes


def _shares(value: Value, original: Any, executor: Executor, name: str) -> bool:
    """Whether a value made from an object that is no array is a view of it: a copy would have another address each
    time.
    """
    again = executor.accept(original, name)
    return again.pointer == value.pointer
