# SPDX-License-Identifier: Apache-2.0
"""The anchor of reductions whose bounds are data: regions of interest, bins, segments."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.core import Region, Value
from tcc.ir.declare import DTYPE, STRS, Attr, IRError, RegionField, Variadic, VariadicResult, register
from tcc.ir.kernel.anchors import COMBINERS, Anchor, verify_epilogue
from tcc.ir.types import TensorType


@register
class Ragged(Anchor):
    """A reduction over a part of the reduce dims that data decide for each parallel point.

    `bounds` are integers, two for each reduce dim in order, read at the parallel point: where its part begins, and
    where it ends (exclusive). What of a part is outside of the dim does not count; a part may be empty.
    `body(scalars of ins)` yields one value per entry of `combine`, combined over the part in type `acc`;
    `epilogue(accumulated values, scalars of extra)` yields the results. An empty part gives the combiner's identity.
    """

    name = "kernel.ragged"
    bounds = Variadic()
    ins = Variadic()
    extra = Variadic()
    combine = Attr(STRS)
    acc = Attr(DTYPE)
    body = RegionField()
    epilogue = RegionField()
    outs = VariadicResult()

    def operand_groups(self) -> Sequence[tuple[Region, tuple[Value, ...], bool]]:
        return [(self.body, self.ins, True)]

    @property
    def inside(self) -> range:
        """Which operands are `ins`."""
        first = len(self.bounds)
        return range(first, first + len(self.ins))

    @property
    def after(self) -> range:
        """Which operands are `extra`."""
        return range(self.inside.stop, len(self.operands))

    def verify(self) -> None:
        super().verify()
        if not self.combine or any(c not in COMBINERS for c in self.combine):
            raise IRError(f"{self.name}: combine must be of {', '.join(COMBINERS)}, not {self.combine}")
        names = self.domain.reduce_names
        if len(self.bounds) != 2 * len(names):
            raise IRError(f"{self.name}: {len(self.bounds)} bounds for {len(names)} reduce dims: two each are needed")
        for i, value in enumerate(self.bounds):
            if not isinstance(value.type, TensorType) or not value.type.dtype.is_int:
                raise IRError(f"{self.name}: bounds are integers, not {value.type}")
            wrong = self.maps[i].symbols - set(self.domain.parallel_names) - self.free_names
            if wrong:
                raise IRError(f"{self.name}: the map {self.maps[i].text()} of a bound mentions {min(wrong)}")
        verify_epilogue(self, self.epilogue, [self.acc] * len(self.combine), self.extra)
