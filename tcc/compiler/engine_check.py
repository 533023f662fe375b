# SPDX-License-Identifier: Apache-2.0
"""Checks of an engine before it is written: a mistake here is a bug of the compiler, and at run time it would be a
wild pointer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tcc.runtime.dtypes import numpy_dtype
from tcc.runtime.expr import symbols_of
from tcc.runtime.host_values import is_host

if TYPE_CHECKING:
    from tcc.compiler.engine_writer import EngineContent

Op = Mapping[str, Any]

_ARENA_ALIGNMENT = {"cpu": 64, "cuda": 256}
_DEVICE_OPS = ("launch", "memset", "copy")
_READ_ONLY = ("weight", "input")


def check_content(content: EngineContent) -> None:
    """Raise ValueError, saying what is wrong, where the parts of an engine do not fit together."""
    _Checker(content).check()


class _Checker:
    def __init__(self, content: EngineContent) -> None:
        self._content = content
        self._buffers = content.buffers
        self._symbols = {symbol["name"] for symbol in content.symbols}
        self._segments: set[str] = set()

    def check(self) -> None:
        content = self._content
        for index in range(len(self._buffers)):
            self._buffer(index)
        self._expr(content.arena["bytes"], "the arena")
        self._ports(content.inputs, "input")
        self._ports(content.outputs, "output")
        for name, kernel in content.kernels.items():
            for entry in kernel["files"].values():
                if entry not in content.files:
                    raise ValueError(f"kernel {name} names the file '{entry}', which the engine does not hold")
        self._ops(content.schedule, inside=False)

    def _buffer(self, index: int) -> None:
        buffer, what = self._buffers[index], f"buffer {index}"
        space = buffer["space"]
        if space == "host":
            return
        if buffer["dtype"] == "str":
            raise ValueError(f"{what} holds strings in the space {space}, and they live on the host")
        numpy_dtype(buffer["dtype"])
        for expr in (buffer["bytes"], *buffer["shape"]):
            self._expr(expr, what)
        if space == "view":
            self._expr(buffer["offset"], what)
            if self._id(buffer["of"], what)["space"] == "view":
                raise ValueError(f"{what} is a view of buffer {buffer['of']}, which is a view too")
        elif space == "arena":
            offset, total = buffer["offset"], self._content.arena["bytes"]
            self._expr(offset, what)
            alignment = _ARENA_ALIGNMENT.get(self._content.target["kind"], 1)
            if isinstance(offset, int) and offset % alignment:
                raise ValueError(f"{what} starts at {offset} in the arena, which is no multiple of {alignment}")
            sizes = (offset, buffer["bytes"], total)
            if all(isinstance(size, int) for size in sizes) and offset + buffer["bytes"] > total:
                raise ValueError(f"{what} ends at {offset + buffer['bytes']}, past the {total} bytes of the arena")
        elif space == "weight":
            weight = int(buffer["name"][1:])
            if weight >= len(self._content.weights) or buffer["bytes"] > self._content.weights[weight].nbytes:
                raise ValueError(f"{what} is larger than the weight {buffer['name']}, or there is no such weight")
        elif space in ("input", "output"):
            ports = self._content.inputs if space == "input" else self._content.outputs
            if buffer["position"] >= len(ports):
                raise ValueError(f"{what} is {space} {buffer['position']} of {len(ports)}")
        elif space != "pool":
            raise ValueError(f"{what} is in a space '{space}' that the format does not have")

    def _ports(self, ports: Sequence[Mapping[str, Any]], space: str) -> None:
        names = [port["name"] for port in ports]
        if len(set(names)) < len(names):
            raise ValueError(f"two {space}s have the same name")
        for position, port in enumerate(ports):
            what = f"{space} '{port['name']}'"
            buffer = self._id(port["buffer"], what)
            if buffer["space"] == "host":
                if is_host(port):
                    continue
                raise ValueError(f"{what} is a tensor of numbers and its buffer {port['buffer']} is on the host")
            if buffer["dtype"] != port["dtype"] or list(buffer["shape"]) != list(port["shape"]):
                raise ValueError(f"{what} and its buffer {port['buffer']} differ in dtype or shape")
            if buffer["space"] == space and buffer["position"] != position:
                raise ValueError(f"{what} is at position {position} and its buffer says {buffer['position']}")
            if space == "input" and buffer["space"] != "input":
                raise ValueError(f"{what} has buffer {port['buffer']} in the space {buffer['space']}")

    def _ops(self, ops: Sequence[Op], inside: bool) -> None:
        for op in ops:
            if (op["op"] in _DEVICE_OPS) != inside:
                raise ValueError(f"the op {op['op']} stands {'inside' if inside else 'outside'} a segment")
            what = f"the op {op['op']}{' of ' + ', '.join(op['loc']) if op.get('loc') else ''}"
            for index in self._touched(op):
                self._id(index, what)
            for expr in self._exprs(op):
                self._expr(expr, what)
            if op["op"] == "launch":
                self._launch(op, what)
            elif op["op"] == "assign":
                for index in self._touched(op):
                    if self._buffers[index]["space"] != "host":
                        raise ValueError(f"{what} names buffer {index}, which is not on the host")
            elif op["op"] in ("memset", "copy"):
                self._writable(op["dst"]["buffer"], what)
            elif op["op"] == "segment" and self._content.native is not None:
                if op["name"] in self._segments:
                    raise ValueError(f"two segments are named '{op['name']}', and a native function can only be one")
                self._segments.add(op["name"])
            for part in ("body", "then", "else"):
                self._ops(op.get(part, ()), inside=op["op"] == "segment")

    def _launch(self, op: Op, what: str) -> None:
        if op["kernel"] not in self._content.kernels:
            raise ValueError(f"{what} launches the kernel {op['kernel']}, which the engine does not hold")
        for index in op["writes"]:
            self._writable(index, what)
        waves = op.get("waves", 1)
        if waves < 1 or (isinstance(op.get("tasks"), int) and op["tasks"] % waves):
            raise ValueError(f"{what} has {op['tasks']} tasks, which are not {waves} equal waves")
        known = {self._root(index) for index in (*op["reads"], *op["writes"])}
        for param in op["params"]:
            place = param.get("tensor_map", param)
            if "buffer" in place and self._root(place["buffer"]) not in known:
                raise ValueError(
                    f"{what} is given buffer {place['buffer']} and lists it neither as read nor as written"
                )

    def _touched(self, op: Op) -> Iterator[int]:
        """The buffer ids that an op itself names."""
        for param in op.get("params", ()):
            place = param.get("tensor_map", param)
            if "buffer" in place:
                yield place["buffer"]
        for key in ("reads", "writes", "inputs", "outputs"):
            yield from (index for index in op.get(key, ()) if index is not None)
        for key in ("src", "dst", "trip"):
            if op.get(key) is not None:
                yield op[key] if op["op"] == "assign" else op[key]["buffer"]
        for key in ("buffer", "cond", "iteration"):
            if op.get(key) is not None:
                yield op[key]
        for pair in (*op.get("carried", ()), *op.get("scan", ())):
            yield from pair.values()

    def _exprs(self, op: Op) -> Iterator[Any]:
        """The expressions that an op itself holds."""
        for param in op.get("params", ()):
            place = param.get("tensor_map", param)
            yield from (place.get("offset", 0), *place.get("dims", ()), *place.get("strides", ()))
            if "scalar" in param and param["dtype"][0] in "iu":
                yield param["scalar"]
        for key in ("src", "dst") if op["op"] != "assign" else ():
            yield op.get(key, {}).get("offset", 0)
        for key in ("grid", "block", "cluster"):
            yield from op.get(key) or ()
        for key in ("tasks", "bytes", "trip_expr", "symbol", "count"):
            if op.get(key) is not None:
                yield op[key]

    def _root(self, index: int) -> int:
        buffer = self._buffers[index]
        return buffer["of"] if buffer["space"] == "view" else index

    def _writable(self, index: int, what: str) -> None:
        space = self._buffers[self._root(index)]["space"]
        if space in _READ_ONLY:
            raise ValueError(f"{what} writes buffer {index}, which is in the space {space}")

    def _id(self, index: int, what: str) -> dict[str, Any]:
        if not 0 <= index < len(self._buffers):
            raise ValueError(f"{what} names buffer {index}, and there are {len(self._buffers)}")
        return self._buffers[index]

    def _expr(self, expr: Any, what: str) -> None:
        unknown = next((name for name in symbols_of(expr) if name not in self._symbols), None)
        if unknown is not None:
            raise ValueError(f"{what} uses the symbol '{unknown}', which the engine does not declare")
