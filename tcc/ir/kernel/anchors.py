# SPDX-License-Identifier: Apache-2.0
"""The anchors: what a kernel computes, over a named iteration domain.

Every operand is read through an index map from the domain (`maps`, one per operand) and every result is written
through one (`out_maps`, one per result; each element exactly once). The scalar that a read gives arrives in a region
as a block argument; regions hold no loads. Results are tensors; scalars are rounded to the result's type only by the
region (its yield has the result's element type).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tcc.ir.attributes import IndexMap
from tcc.ir.core import Op, Region, Value
from tcc.ir.declare import (
    DOMAIN,
    DTYPE,
    MAPS,
    STRS,
    Attr,
    IRError,
    Operand,
    RegionField,
    Variadic,
    VariadicRegion,
    VariadicResult,
    register,
)
from tcc.ir.expr import symbols
from tcc.ir.types import DType, ScalarType, TensorType

COMBINERS = ("sum", "max", "min", "prod")


class Anchor(Op):
    """Base of anchors."""

    domain = Attr(DOMAIN)
    maps = Attr(MAPS)
    out_maps = Attr(MAPS)
    allow = Attr(STRS, ())
    """Numerics the kernel may use beyond exact-in-its-types: "tf32", "winograd", "approx"."""

    terminated_by: ClassVar[str] = "kernel.yield"
    accesses_reduce: ClassVar[bool] = True

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        """(region, the operands whose scalars are its first arguments, whether they may vary along reduce dims)."""
        raise NotImplementedError

    @property
    def own_names(self) -> frozenset[str]:
        """The names of dims, which hide symbols of the same name."""
        return frozenset(self.domain.names)

    @property
    def free_names(self) -> frozenset[str]:
        """What domain, maps and regions mention that is neither a dim nor a `$i`: symbols of the kernel."""
        found = {s for access in (*self.maps, *self.out_maps) for s in access.symbols if not s.startswith("$")}
        found |= {op.attrs["dim"] for r in self.regions for op in r.block.ops if op.name == "kernel.index"}
        found -= self.own_names
        return frozenset(found.union(*(symbols(e) for _, e in (*self.domain.parallel, *self.domain.reduce))))

    def map_of(self, value_index: int) -> IndexMap:
        """The index map of an operand, by its index among all operands."""
        return self.maps[value_index]

    def verify(self) -> None:
        if len(self.maps) != len(self.operands):
            raise IRError(f"{self.name}: {len(self.operands)} operands and {len(self.maps)} maps")
        if len(self.out_maps) != len(self.results):
            raise IRError(f"{self.name}: {len(self.results)} results and {len(self.out_maps)} out_maps")
        names = self.domain.names
        if len(set(names)) != len(names):
            raise IRError(f"{self.name}: a dim of the domain is named twice")
        given = frozenset(f"${i}" for i in range(len(self.operands)))
        for what, value, access in [
            *(("operand", v, m) for v, m in zip(self.operands, self.maps, strict=True)),
            *(("result", v, m) for v, m in zip(self.results, self.out_maps, strict=True)),
        ]:
            if not isinstance(value.type, TensorType):
                raise IRError(f"{self.name}: an {what} is {value.type}, not a tensor")
            if len(access.results) != value.type.rank:
                raise IRError(f"{self.name}: the map {access.text()} does not fit the {what} {value.type}")
        for access in self.maps:
            unknown = {s for s in access.symbols if s.startswith("$")} - given
            if unknown:
                raise IRError(f"{self.name}: the map {access.text()} mentions {', '.join(sorted(unknown))}")
        for access in self.out_maps:
            unknown = access.symbols & (frozenset(names) - frozenset(self.domain.parallel_names))
            unknown = (unknown | {s for s in access.symbols if s.startswith("$")}) - frozenset(self._written_dims())
            if unknown:
                raise IRError(f"{self.name}: the out_map {access.text()} mentions {', '.join(sorted(unknown))}")
        for region, values, _ in self.operand_groups():
            args = [a.type for a in region.block.args[: len(values)]]
            wanted = [ScalarType(v.type.dtype) for v in values if isinstance(v.type, TensorType)]
            if list(args) != wanted:
                raise IRError(
                    f"{self.name}: a region takes ({', '.join(map(str, args))}), "
                    f"but its operands give ({', '.join(map(str, wanted))})"
                )

    def _written_dims(self) -> tuple[str, ...]:
        """What out_maps may mention besides parallel dims and symbols."""
        return ()

    def index_of(self, value: Value, start: int = 0) -> int:
        return self.operands.index(value, start)


def result_dtypes(op: Op) -> list[DType]:
    return [r.type.dtype for r in op.results if isinstance(r.type, TensorType)]


@register
class Map(Anchor):
    """Pointwise: `body(scalars of all operands)` yields one scalar per result, for every point of the domain
    (parallel dims only)."""

    name = "kernel.map"
    ins = Variadic()
    body = RegionField()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return [(self.body, self.ins, False)]


@register
class Reduce(Anchor):
    """Reduction: `body(scalars of ins)` yields one value per entry of `combine`, combined over the reduce dims in
    type `acc`; `epilogue(accumulated values, scalars of extra)` yields the results, for every parallel point.

    An empty reduce domain gives the combiner's identity.
    """

    name = "kernel.reduce"
    ins = Variadic()
    extra = Variadic()
    combine = Attr(STRS)
    acc = Attr(DTYPE)
    body = RegionField()
    epilogue = RegionField()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return [(self.body, self.ins, True)]

    def verify(self) -> None:
        super().verify()
        if not self.combine or any(c not in COMBINERS for c in self.combine):
            raise IRError(f"{self.name}: combine must be of {', '.join(COMBINERS)}, not {self.combine}")
        verify_epilogue(self, self.epilogue, [self.acc] * len(self.combine), self.extra)


@register
class Pool(Reduce):
    """A reduction over a window: parallel dims n, spatial o*, c; reduce dims are the window's k*. Same fields as
    `kernel.reduce`; the maps slide (`oy*s + ky*d - p`)."""

    name = "kernel.pool"


class Contraction(Anchor):
    """`Σ lhs_body(lhs scalars) × rhs_body(rhs scalars)` over the reduce dims in type `acc`, then
    `epilogue(sum, scalars of extra)` yields the results."""

    lhs = Variadic()
    rhs = Variadic()
    extra = Variadic()
    acc = Attr(DTYPE)
    lhs_body = RegionField()
    rhs_body = RegionField()
    epilogue = RegionField()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return [(self.lhs_body, self.lhs, True), (self.rhs_body, self.rhs, True)]

    def verify(self) -> None:
        super().verify()
        verify_epilogue(self, self.epilogue, [self.acc], self.extra)


@register
class MatMul(Contraction):
    """Parallel dims: any number of batch dims, then `m`, `n`; reduce dim: `k`. lhs does not mention n, rhs does not
    mention m."""

    name = "kernel.matmul"

    def verify(self) -> None:
        super().verify()
        if self.domain.parallel_names[-2:] != ("m", "n") or self.domain.reduce_names != ("k",):
            raise IRError(f"{self.name}: the domain {self.domain.text()} must end in m, n | k")


@register
class Conv(Contraction):
    """Convolution. Parallel dims `n`, `oz`?, `oy`, `ox`, `g`, `co` (output channel within its group); reduce dims
    `kz`?, `ky`, `kx`, `ci` (input channel within its group). 1-D convolutions have an `oy` of extent 1."""

    name = "kernel.conv"

    def verify(self) -> None:
        super().verify()
        p, r = self.domain.parallel_names, self.domain.reduce_names
        two = p == ("n", "oy", "ox", "g", "co") and r == ("ky", "kx", "ci")
        three = p == ("n", "oz", "oy", "ox", "g", "co") and r == ("kz", "ky", "kx", "ci")
        if not two and not three:
            raise IRError(f"{self.name}: the domain {self.domain.text()} must be n, oy, ox, g, co | ky, kx, ci")


@register
class Rows(Anchor):
    """Several reductions, then a map, over the same rows (softmax, norms).

    Parallel dims name the row, reduce dims the place in it. Stage i's region takes (scalars of ins, results of the
    stages before) and yields the value combined by `combine[i]` over the row in type `acc`; the last region takes
    (scalars of ins, all stages' results) and yields the results at every point of the row. The out_maps may mention
    reduce dims too.
    """

    name = "kernel.rows"
    ins = Variadic()
    combine = Attr(STRS)
    acc = Attr(DTYPE)
    stages = VariadicRegion()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return [(r, self.ins, True) for r in self.stages]

    def _written_dims(self) -> tuple[str, ...]:
        return self.domain.reduce_names

    def verify(self) -> None:
        super().verify()
        if len(self.stages) != len(self.combine) + 1 or any(c not in COMBINERS for c in self.combine):
            raise IRError(
                f"{self.name}: {len(self.stages)} regions and combine {self.combine}: one more region is needed"
            )
        for i, stage in enumerate(self.stages):
            if len(stage.block.args) != len(self.ins) + i:
                raise IRError(f"{self.name}: region {i} takes {len(stage.block.args)} values, not {len(self.ins) + i}")


@register
class Attention(Anchor):
    """Scaled dot-product attention without the matrix of scores (Dao et al., 2022, FlashAttention).

    Parallel dims: any number of batch dims (batch, head), then `m` (query), `d` (value channel); reduce dims `n` (key)
    and `k` (query/key channel). `score(Σ_k q·k, scalars of extra)` yields the score in type `acc` (scale, mask;
    -inf removes a key); then softmax over n, and the result is `epilogue(Σ_n p·v)`. A row whose scores are all -inf
    gives zeros.
    """

    name = "kernel.attention"
    q = Operand()
    k = Operand()
    v = Operand()
    extra = Variadic()
    acc = Attr(DTYPE)
    score = RegionField()
    epilogue = RegionField()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return []

    def verify(self) -> None:
        super().verify()
        if self.domain.parallel_names[-2:] != ("m", "d") or self.domain.reduce_names != ("n", "k"):
            raise IRError(f"{self.name}: the domain {self.domain.text()} must end in m, d | n, k")
        verify_epilogue(self, self.score, [self.acc], self.extra)


def verify_epilogue(op: Op, region: Region, acc: Sequence[DType], extra: Sequence[Value]) -> None:
    """The region takes the accumulated values, then the scalars of extra."""
    wanted = [ScalarType(d) for d in acc] + [ScalarType(v.type.dtype) for v in extra if isinstance(v.type, TensorType)]
    given = [a.type for a in region.block.args]
    if given != wanted:
        raise IRError(f"{op.name}: a region takes ({', '.join(map(str, given))}), not ({', '.join(map(str, wanted))})")
