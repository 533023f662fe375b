# SPDX-License-Identifier: Apache-2.0
"""`lower-to-kernel`: every fusion group becomes a kernel, and the graph a host function that launches them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.errors import InputError
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.declare import IRError
from tcc.ir.expr import mul, product
from tcc.ir.graph import Bind, BitCast, Concat, Constant, Dims, Fused, If, Iota, Loop, Reshape, Slice
from tcc.ir.graph import Func as GraphFunc
from tcc.ir.graph import Yield as GraphYield
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.graph.function import main_function
from tcc.ir.kernel import (
    Assemble,
    BindOp,
    Func,
    Host,
    HostCall,
    LaunchOp,
    Return,
    ViewOp,
)
from tcc.ir.kernel import Constant as KernelConstant
from tcc.ir.kernel.symbols import close
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import TensorType, free_symbols, on_host
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.lower import attention, contraction, control, irregular, recurrence, reduction, region
from tcc.passes.lower.group import LOWERINGS, Group
from tcc.passes.lower.host import SPECS
from tcc.passes.symbols import rename_symbols

assert attention and contraction and irregular and recurrence and reduction and region  # they fill LOWERINGS


@register_pass
@dataclass(frozen=True)
class LowerToKernel(Pass):
    """Lowers a partitioned graph to kernels.

    before: `%y = graph.fused(%x, %w) ({ conv, relu })`; after: a `kernel.func @k0` with the anchor `kernel.conv` whose
    epilogue holds the relu, and `%y = kernel.launch(%x, %w) {callee = "k0"}` in `kernel.host`. Ops outside of groups
    are groups of one. Reshapes and contiguous slices become views, concats `kernel.assemble`, and ops without a kernel
    `kernel.host_call`, each with a remark.
    """

    name: ClassVar[str] = "lower-to-kernel"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        function = main_function(module)
        for value, name in zip(function.block.args, function.arg_names, strict=True):
            t = value.type
            if isinstance(t, TensorType) and not t.is_static:
                free = ", ".join(str(d) for d in t.shape if not isinstance(d, int))
                example = "x".join(str(d) if isinstance(d, int) else "1" for d in t.shape)
                raise InputError(
                    f"the input {name} has the free dims {free}; bind them, for example with --shape {name}={example}"
                )
        _rename_symbols(function)
        _Lowering(module, function, rewriter).run()


class _Lowering:
    def __init__(self, module: ModuleOp, function: GraphFunc, rewriter: Rewriter) -> None:
        self.module = module
        self.function = function
        self.rewriter = rewriter
        self.values: dict[Value, Value] = {}
        self.count = 0
        self.sizes: set[Op] = set()
        """Launches that only write extents to memory: kernels that use these compute them themselves."""

    def run(self) -> None:
        f = self.function
        block = Block([a.type for a in f.block.args], [a.hint for a in f.block.args])
        self.values.update(zip(f.block.args, block.args, strict=True))
        host = Host(
            regions=[Region(block)], result_types=[], sym_name="main", arg_names=f.arg_names,
            result_names=f.result_names,
        )  # fmt: skip
        self.rewriter.append(self.module.block, host)
        for op in f.block.ops:
            if op.name == "graph.return":
                block.append(Return([self.values[v] for v in op.operands]))
            else:
                self.lower(op, block)
        for op in list(self.module.ops):
            if isinstance(op, GraphFunc):
                self.rewriter.erase(op)
        host.detach()
        self.module.block.append(host)
        kernels = self.module.functions()
        for op in list(host.walk())[::-1]:
            if isinstance(op, ViewOp | KernelConstant) and op.results[0].use_count == 0:
                op.erase()
            elif op in self.sizes and op.results[0].use_count == 0:
                assert isinstance(op, LaunchOp)
                self.rewriter.erase(kernels[op.callee])
                op.erase()

    def lower(self, op: Op, block: Block) -> None:
        """Append the host ops for one graph op."""
        assert isinstance(op, GraphOp)
        _check_types(op)
        if isinstance(op, Constant):
            out: Sequence[Value] = [block.append(KernelConstant(value=op.value, result_types=[op.y.type])).y]
        elif isinstance(op, If):
            out = control.branch(self, op, block)
        elif isinstance(op, Loop):
            out = control.loop(self, op, block)
        elif op.name in SPECS:
            out = self.host_call(op, block)
        elif isinstance(op, Fused):
            out = self.group(op, block)
        elif isinstance(op, Bind):
            made = BindOp(self.values[op.x], symbols=op.symbols, places=op.places, least=op.least, loc=op.loc)
            out = block.append(made).results
        elif isinstance(op, Dims | Iota):
            out = self.group(wrap(op), block)
            launch = out[0].defining_op
            assert launch is not None
            self.sizes.add(launch)
        elif op.category in ("control", "opaque", "constant"):
            raise InputError(f'{op.name} at "{", ".join(op.loc)}" cannot be compiled yet')
        elif isinstance(op, Concat) and _placed(op):
            out = [self.concat(op, block)]
        else:
            out = self.group(wrap(op), block)
        for old, new in zip(op.results, out, strict=True):
            new.hint = old.hint
            self.values[old] = new

    def group(self, fused: Fused, block: Block) -> Sequence[Value]:
        if all(tensor_type(r).size == 0 and tensor_type(r).is_static for r in fused.results):
            return [self.empty(tensor_type(r), block) for r in fused.results]
        inner = [op for op in fused.block.ops if not isinstance(op, GraphYield)]
        if len(inner) == 1 and len(fused.results) == 1:
            outer: dict[Value, Value] = dict(zip(fused.block.args, fused.operands, strict=True))
            view = self.view(inner[0], outer, block)
            if view is not None:
                return [view]
            if isinstance(inner[0], Concat) and _placed(inner[0]):
                return [self.concat(inner[0], block, outer)]
        group = Group(fused)
        key = group.anchor.name if group.anchor is not None else ""
        lowering = LOWERINGS.get(key)
        if lowering is None:
            raise IRError(f'{key} at "{", ".join(fused.loc)}" has no lowering to a kernel')
        made = lowering(group)
        operands = [
            self.shaped(self.values[v], t, block) for v, t in zip(made.operands, made.func.arg_types, strict=True)
        ]
        for arg, operand in zip(made.func.body.block.args, operands, strict=True):
            # A part of a tensor may begin anywhere.
            arg.type = tensor_type(arg).with_(align=tensor_type(operand).align)
        launch = self.launch(made.func, operands, fused.loc, block)
        return [self.shaped(r, tensor_type(v), block) for r, v in zip(launch.results, fused.results, strict=True)]

    def empty(self, t: TensorType, block: Block) -> Value:
        """A tensor without elements: nothing computes it."""
        content = self.module.resources.add(np.empty(t.static_shape, t.dtype.numpy))
        return block.append(KernelConstant(value=content, result_types=[t])).y

    def launch(self, func: Func, operands: Sequence[Value], loc: Sequence[str], block: Block) -> LaunchOp:
        """A call of a new kernel."""
        func.sym_name = f"k{self.count}"
        func.loc = tuple(loc)
        self.count += 1
        self.rewriter.append(self.module.block, func)
        types = list(func.result_types)
        return block.append(
            LaunchOp(operands, callee=func.sym_name, extents=close(func), result_types=types, loc=func.loc)
        )

    def shaped(self, value: Value, t: TensorType, block: Block) -> Value:
        """value as a tensor of type t with the same bytes, which lie where they lie."""
        t = t.with_(align=math.gcd(t.align, tensor_type(value).align))
        if value.type == t:
            return value
        source = value.defining_op
        if isinstance(source, ViewOp) and source.offset == 0 and source.x.type == t:
            return source.x
        return block.append(ViewOp(value, offset=0, result_types=[t])).y

    def view(self, op: Op, outer: dict[Value, Value], block: Block) -> Value | None:
        """The result of a lone reshape or bit cast, or of a slice whose elements are contiguous, as a view; else
        None."""
        if isinstance(op, Reshape | BitCast):
            return self.shaped(self.values[outer[op.x]], tensor_type(op.y), block)
        if not isinstance(op, Slice) or any(s != 1 for s in op.steps):
            return None
        x, y = tensor_type(op.x), tensor_type(op.y)
        cut = [i for i in range(x.rank) if x.shape[i] != y.shape[i]]
        if cut and product(y.shape[: cut[-1]]) != 1:
            return None
        offset = 0
        for start, stride in zip(op.starts, x.dense_strides(), strict=True):
            offset = offset + mul(start, stride)
        if not isinstance(offset, int):
            return None
        align = math.gcd(tensor_type(self.values[outer[op.x]]).align, offset * x.dtype.bytes)
        made = block.append(
            ViewOp(self.values[outer[op.x]], offset=offset, result_types=[y.with_(align=align)], loc=op.loc)
        )
        return made.y

    def concat(self, op: Concat, block: Block, outer: dict[Value, Value] | None = None) -> Value:
        strides = tensor_type(op.y).dense_strides()
        offsets: list[int] = []
        at = 0
        parts: list[Value] = []
        for v in op.operands:
            extent = tensor_type(v).shape[op.axis]
            stride = strides[op.axis]
            assert isinstance(extent, int) and isinstance(stride, int)
            if tensor_type(v).size != 0:
                offsets.append(at * stride)
                parts.append(self.values[v if outer is None else outer[v]])
            at += extent
        return block.append(
            Assemble(parts, axis=op.axis, offsets=tuple(offsets), result_types=[op.y.type], loc=op.loc)
        ).y

    def host_call(self, op: GraphOp, block: Block) -> Sequence[Value]:
        spec = SPECS[op.name](op)
        self.rewriter.remark(op, "host-op", spec.function, spec.reason)
        made = HostCall(
            [self.values[v] for v in op.operands], function=spec.function, arguments=spec.arguments,
            reason=spec.reason, result_types=[r.type for r in op.results], loc=op.loc,
        )  # fmt: skip
        if spec.given is not None:
            made.attrs["kernel.given"] = spec.given
        return block.append(made).results


def _check_types(op: GraphOp) -> None:
    """InputError for strings, sequences and optionals in what is no call on the host."""
    if isinstance(op, Constant | If | Loop):
        return
    where = f'{op.name} at "{", ".join(op.loc)}"'
    for v in (*op.results, *op.operands):
        if on_host(v.type) and op.name not in SPECS:
            raise InputError(f"{where} works on {v.type}, which only functions called on the host take")


def _placed(op: Concat) -> bool:
    """Whether the parts of a concat have places that are known when compiling, in a result that can be allocated
    before any of them is written; others are computed by one kernel."""
    y = tensor_type(op.y)
    symbols = free_symbols(y)
    return all(
        isinstance(tensor_type(v).shape[op.axis], int) and free_symbols(v.type) == symbols for v in op.operands
    ) and isinstance(y.dense_strides()[op.axis], int)


_KERNEL_NAME = re.compile(r"([a-z]{1,2}|one)\d*g?")
"""What the dims of domains and the symbols of kernels are called."""


def _rename_symbols(function: GraphFunc) -> None:
    """Give symbols of the program that are called as a kernel's dims or symbols may be another name."""
    types = [v.type for op in function.walk() for v in op.results]
    types += [a.type for op in function.walk() for r in op.regions for b in r.blocks for a in b.args]
    names = {s for t in types for s in free_symbols(t)}
    names |= {s for op in function.walk() if isinstance(op, Bind) for s in op.symbols}
    renamed: dict[str, str] = {}
    for name in sorted(n for n in names if _KERNEL_NAME.fullmatch(n)):
        other = f"{name}_"
        while other in names:
            other += "_"
        names.add(other)
        renamed[name] = other
    if renamed:
        rename_symbols(function, renamed)


def wrap(op: GraphOp) -> Fused:
    """A group of one op, detached; its operands are those of the op."""
    inputs = list(dict.fromkeys(op.operands))
    block = Block([v.type for v in inputs])
    mapping = dict(zip(inputs, block.args, strict=True))
    copy = block.append(op.clone(dict(mapping)))
    block.append(GraphYield(list(copy.results)))
    return Fused(inputs, regions=[Region(block)], loc=op.loc)
