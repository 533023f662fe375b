# SPDX-License-Identifier: Apache-2.0
"""The anchors for what is neither a map nor a reduction: running combinations, the first k in order, and scatters."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.core import Region, Value
from tcc.ir.declare import (
    BOOLEAN,
    DOMAIN,
    DTYPE,
    STR,
    Attr,
    IRError,
    Operand,
    RegionField,
    Variadic,
    VariadicResult,
    one_of,
    register,
)
from tcc.ir.kernel.anchors import COMBINERS, Anchor, result_dtypes, verify_epilogue
from tcc.ir.types import I64, ScalarType, TensorType


@register
class Scan(Anchor):
    """Running combinations (sums, products, extremes) along rows.

    Parallel dims name the row, the one reduce dim the place in it. `body(scalars of ins)` yields a value, and all
    values of the row up to a place (from it on with `reverse`; without its own with `exclusive`) are combined by
    `combine` in type `acc`; `epilogue(combination, scalars of extra)` yields the results at every place.
    The out_maps mention the reduce dim.
    """

    name = "kernel.scan"
    ins = Variadic()
    extra = Variadic()
    combine = Attr(STR)
    acc = Attr(DTYPE)
    exclusive = Attr(BOOLEAN, False)
    reverse = Attr(BOOLEAN, False)
    body = RegionField()
    epilogue = RegionField()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return [(self.body, self.ins, True)]

    def _written_dims(self) -> tuple[str, ...]:
        return self.domain.reduce_names

    def verify(self) -> None:
        super().verify()
        if self.combine not in COMBINERS:
            raise IRError(f"{self.name}: combine must be one of {', '.join(COMBINERS)}, not {self.combine}")
        if len(self.domain.reduce_names) != 1:
            raise IRError(f"{self.name}: the domain {self.domain.text()} must have one reduce dim")
        verify_epilogue(self, self.epilogue, [self.acc], self.extra)


@register
class TopK(Anchor):
    """The first places of every row in order of their keys, and the keys.

    Parallel dims name the row; of the reduce dims `s` is the place in it and `r` the rank, whose extent is at most that
    of s. `body(scalars of ins)` yields the key of a place. Rank r of a row is the place that r others come before:
    larger keys come first (smaller ones without `largest`), NaN counts as larger than every number, and of equal keys
    the lower place comes first. `epilogue(key, place as i64)` yields the results at every rank; the out_maps mention r.
    """

    name = "kernel.topk"
    ins = Variadic()
    largest = Attr(BOOLEAN, True)
    body = RegionField()
    epilogue = RegionField()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return [(self.body, self.ins, True)]

    def _written_dims(self) -> tuple[str, ...]:
        return ("r",)

    def verify(self) -> None:
        super().verify()
        if self.domain.reduce_names != ("s", "r"):
            raise IRError(f"{self.name}: the domain {self.domain.text()} must end in | s, r")
        places, ranks = self.domain.extent("s"), self.domain.extent("r")
        if isinstance(places, int) and isinstance(ranks, int) and ranks > places:
            raise IRError(f"{self.name}: {ranks} ranks of {places} places")
        (key,) = [v.type for v in self.body.block.terminator.operands]
        given = [a.type for a in self.epilogue.block.args]
        if given != [key, ScalarType(I64)]:
            raise IRError(f"{self.name}: a region takes ({', '.join(map(str, given))}), not ({key}, i64)")


@register
class Scatter(Anchor):
    """A copy of x with updates written, or by `reduction` combined, at places that data decide.

    x is read through its map over `frame`, whose dims are those of the result in order. Then `body(scalars of ins)`
    yields an update at every point of the domain, for the element at the out_map, which may mention `$i` and is always
    in range. Points that differ in a parallel dim go to different elements; points of the same parallel coordinates are
    applied in the row-major order of the reduce dims, so a repeated place keeps the last one with `reduction` none.
    """

    name = "kernel.scatter"
    x = Operand()
    ins = Variadic()
    frame = Attr(DOMAIN)
    reduction = Attr(one_of("none", "add", "mul", "max", "min"), "none")
    body = RegionField()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return [(self.body, self.ins, True)]

    @property
    def own_names(self) -> frozenset[str]:
        return super().own_names | frozenset(self.frame.names)

    def _written_dims(self) -> tuple[str, ...]:
        return (*self.domain.reduce_names, *(f"${i}" for i in range(1, len(self.operands))))

    def verify(self) -> None:
        super().verify()
        if len(self.outs) != 1:
            raise IRError(f"{self.name}: it has one result, not {len(self.outs)}")
        out = self.outs[0].type
        assert isinstance(out, TensorType)
        if tuple(e for _, e in self.frame.parallel) != out.shape or self.frame.reduce:
            raise IRError(f"{self.name}: the frame {self.frame.text()} does not fit the result {out}")
        if result_dtypes(self) != [v.type.dtype for v in (self.x,) if isinstance(v.type, TensorType)]:
            raise IRError(f"{self.name}: x and the result differ in type")


IRREGULAR = (Scan, TopK, Scatter)
