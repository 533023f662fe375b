# SPDX-License-Identifier: Apache-2.0
"""`pack-constants`: constants in the layouts that the chosen templates want, and the memory that kernels need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.codegen.template import Packing
from tcc.compiler.emitted import emit, packings
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Value
from tcc.ir.expr import coefficient, evaluate, symbols
from tcc.ir.kernel import Constant, Func, Host, LaunchOp, Pack, ViewOp
from tcc.ir.kernel.problem import kernels_of
from tcc.ir.module import ModuleOp
from tcc.ir.resources import Array
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import DType, TensorType
from tcc.passes.base import Pass, PassContext, register_pass


@register_pass
@dataclass(frozen=True)
class PackConstants(Pass):
    """Puts a `kernel.pack` before each constant operand that a template wants packed; equal packings of one constant
    are one. Also notes on each launch the workspaces of its kernel.

    before: `kernel.launch(%x, %w) {callee = "k0"}`; after: `%p = kernel.pack(%w) {...}`, `kernel.launch(%x, %p)`.
    """

    name: ClassVar[str] = "pack-constants"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        kernels = {f.sym_name: f for f in kernels_of(module)}
        asked: dict[str, list[Packing]] = {n: packings(f, context.target) for n, f in kernels.items()}
        made: dict[tuple[Value, str], Value] = {}
        for host in [op for op in module.ops if isinstance(op, Host)]:
            for op in list(host.walk()):
                if not isinstance(op, LaunchOp):
                    continue
                func = kernels[op.callee]
                for packing in asked[op.callee]:
                    rewriter.set_operand(op, packing.operand, _packed(op, func, packing, made, rewriter))
                sizes = tuple(int(evaluate(w.bytes, {})) for w in emit(func, context.target).workspaces)
                if sizes:
                    rewriter.set_attr(op, "workspace", sizes)


def _packed(
    op: LaunchOp, func: Func, packing: Packing, made: dict[tuple[Value, str], Value], rewriter: Rewriter
) -> Value:
    value = op.operands[packing.operand]
    key = (value, f"{packing.domain.text()}|{packing.map.text()}|{packing.dtype}|{value.type}")
    if key not in made:
        t = TensorType(packing.shape, packing.dtype)
        pack = Pack(value, domain=packing.domain, map=packing.map, result_types=[t])
        owner = value.defining_op
        assert owner is not None, f"@{func.sym_name} packs an operand that is no constant"
        made[key] = rewriter.insert_after(owner, pack).y
    return made[key]


def constant_array(v: Value, module: ModuleOp) -> Array | None:
    """The content of a value that is a constant, a view of one with known extents, or a packing of one; else None."""
    op = v.defining_op
    if isinstance(op, Constant):
        return module.resources.get(op.value)
    if isinstance(op, ViewOp):
        base = constant_array(op.x, module)
        if base is None:
            return None
        t = op.y.type
        assert isinstance(t, TensorType) and t.strides is None and isinstance(op.offset, int)
        if not t.is_static:
            return None
        shape = t.static_shape
        flat = base.reshape(-1)
        return flat[op.offset : op.offset + int(np.prod(shape, dtype=np.int64))].reshape(shape)
    if isinstance(op, Pack):
        base = constant_array(op.x, module)
        assert base is not None, "a packing of something that is no constant"
        return pack_array(base, op)
    return None


def pack_array(array: Array, op: Pack) -> Array:
    """The packed content of a constant."""
    t = op.y.type
    assert isinstance(t, TensorType)
    return pack_values(array, op.domain, op.map, t.dtype)


def pack_values(array: Array, domain: Domain, access: IndexMap, dtype: DType) -> Array:
    """`packed[d…] = array[map(d…)]`, the map's fill where that is out of range, as `dtype`."""
    shape = tuple(domain.int_extent(n) for n in domain.parallel_names)
    view = _affine_view(array, domain.parallel_names, shape, access)
    if view is not None:
        return np.ascontiguousarray(view.astype(dtype.numpy, copy=False))
    index = {
        n: np.arange(extent, dtype=np.int64).reshape([-1 if i == j else 1 for j in range(len(shape))])
        for i, (n, extent) in enumerate(zip(domain.parallel_names, shape, strict=True))
    }
    where: list[Array] = []
    inside: Array = np.ones((), bool)
    for e, extent in zip(access.results, array.shape, strict=True):
        at = np.asarray(evaluate(e, index))
        if access.fill is not None:
            inside = inside & (at >= 0) & (at < extent)
            at = np.clip(at, 0, max(extent - 1, 0))
        where.append(at)
    for z in access.zero:
        inside = inside & (np.asarray(evaluate(z, index)) == 0)
    out = np.broadcast_to(array[tuple(where)], shape)
    if access.fill is not None:
        out = np.where(inside, out, np.asarray(access.fill, array.dtype))
    return np.ascontiguousarray(out.astype(dtype.numpy, copy=False))


def _affine_view(array: Array, names: Sequence[str], shape: tuple[int, ...], access: IndexMap) -> Array | None:
    """The packed array as a strided view of the (padded) constant, which copies faster than gathering by index; None
    where the map is not affine."""
    if access.zero or array.ndim == 0 or 0 in shape or 0 in array.shape:
        return None
    steps = [0] * len(names)
    first: list[int] = []
    pads: list[tuple[int, int]] = []
    for e, extent in zip(access.results, array.shape, strict=True):
        factors = [coefficient(e, n) for n in names]
        if any(f is None for f in factors) or not symbols(e) <= set(names):
            return None
        base = int(evaluate(e, dict.fromkeys(names, 0)))
        ends = [(f or 0) * (n - 1) for f, n in zip(factors, shape, strict=True)]
        low, high = base + sum(min(0, end) for end in ends), base + sum(max(0, end) for end in ends)
        pads.append((max(0, -low), max(0, high - extent + 1)))
        first.append(base + pads[-1][0])
    if any(before or after for before, after in pads):
        padded = int(np.prod([n + sum(p) for n, p in zip(array.shape, pads, strict=True)], dtype=np.int64))
        if access.fill is None or padded > 2 * array.size + (1 << 20):
            return None
        array = np.pad(array, pads, constant_values=np.asarray(access.fill, array.dtype))
    for i, e in enumerate(access.results):
        for j, n in enumerate(names):
            steps[j] += (coefficient(e, n) or 0) * array.strides[i]
    return np.lib.stride_tricks.as_strided(array[tuple(slice(f, None) for f in first)], shape, steps)
