# SPDX-License-Identifier: Apache-2.0
"""Short ways to build kernels: for lowerings, and for tests of templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.ir.arith import Cast
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Block, Op, Region, Value
from tcc.ir.expr import Dim, Sym
from tcc.ir.kernel.anchors import Anchor, Map
from tcc.ir.kernel.func import Func, Return, Yield
from tcc.ir.scalar import element
from tcc.ir.types import DType, ScalarType, TensorType, Type

Body = Callable[["RegionBuilder", Sequence[Value]], "Value | Sequence[Value]"]


class RegionBuilder:
    """Appends scalar ops to a region's block."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def __call__(self, op: Op) -> Value:
        """Append an op; its result."""
        return self.block.append(op).result

    def cast(self, value: Value, to: DType) -> Value:
        """value as `to`, without an op when it is that already."""
        return value if element(value) == to else self(Cast(value, to=to))


def scalar_region(arg_dtypes: Sequence[DType], body: Body) -> Region:
    """A region over scalars; `body(builder, arguments)` gives what it yields."""
    block = Block([ScalarType(d) for d in arg_dtypes])
    out = body(RegionBuilder(block), block.args)
    block.append(Yield([out] if isinstance(out, Value) else list(out)))
    return Region(block)


def identity_region(dtype: DType) -> Region:
    """A region that yields its only argument."""
    return scalar_region([dtype], lambda b, a: a[0])


def cast_region(source: DType, to: DType) -> Region:
    """A region that yields its only argument as another type."""
    return scalar_region([source], lambda b, a: b.cast(a[0], to))


def dims(*names: str) -> tuple[Sym, ...]:
    """Symbols of those names."""
    return tuple(Sym(n) for n in names)


def identity_map(domain: Domain, names: Sequence[str] | None = None) -> IndexMap:
    """The map that gives the named dims (default: the parallel ones) in order."""
    return IndexMap(tuple(Sym(n) for n in (domain.parallel_names if names is None else names)))


def func(
    name: str,
    arg_types: Sequence[TensorType],
    build: Callable[[Sequence[Value]], Anchor | Sequence[Anchor]],
    const: Sequence[bool] = (),
) -> Func:
    """A kernel; `build(arguments)` gives its anchor (or anchors, in order; the last one's results are returned)."""
    block = Block(list[Type](arg_types))
    made = build(block.args)
    anchors = [made] if isinstance(made, Anchor) else list(made)
    for anchor in anchors:
        block.append(anchor)
    block.append(Return(list(anchors[-1].results)))
    return Func(regions=[Region(block)], result_types=[], sym_name=name, const=tuple(const))


def copying(name: str, t: TensorType, result: TensorType) -> Func:
    """A kernel that copies a tensor into one of the same shape and maybe other strides."""
    domain = Domain(tuple((f"d{i}", e) for i, e in enumerate(t.shape)) or (("d0", 1),))
    access = IndexMap(tuple(Sym(f"d{i}") for i in range(t.rank)))
    return func(
        name,
        [t],
        lambda args: Map(
            [args[0]], domain=domain, maps=(access,), out_maps=(access,), regions=[identity_region(t.dtype)],
            result_types=[result],
        ),
    )  # fmt: skip


def dense(shape: Sequence[Dim], dtype: DType) -> TensorType:
    """A dense tensor type."""
    return TensorType(tuple(shape), dtype)
