# SPDX-License-Identifier: Apache-2.0
"""Matrix products and convolutions seen as one batched GEMM, Σ_fk A(fb, fm, fk) × B(fb, fk, fn), over flat dims.

Of a convolution fm runs over (n, oz?, oy, ox), fk over the window and input channels, fb over groups. A product whose
one side does not mention the batch dims takes them into its other side's dim. With `swapped` the sides change
places, so that consecutive fn are consecutive in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tcc.codegen.cuda.emit import Access, Unit
from tcc.ir.core import Region
from tcc.ir.kernel import Contraction, Conv, Func
from tcc.ir.targets import Target
from tcc.ir.types import DType


@dataclass(frozen=True)
class Side:
    """One factor: its region, its operands, its own flat dim (fm or fn), and how it is best read.

    `along_k`: vectors of `width` elements go along fk, else along its own dim. The first operand decides.
    """

    region: Region
    operands: tuple[int, ...]
    dim: str
    width: int
    along_k: bool


def flat_dims(problem: Func) -> dict[str, tuple[str, ...]]:
    """Flat dim → the anchor's dims in it, unswapped."""
    anchor = problem.anchor
    assert isinstance(anchor, Contraction)
    parallel, reduce = anchor.domain.parallel_names, anchor.domain.reduce_names
    if isinstance(anchor, Conv):
        return {"fb": ("g",), "fm": parallel[:-2], "fn": ("co",), "fk": reduce}
    batch = parallel[:-2]
    lhs = anchor.maps[: len(anchor.lhs)]
    rhs = anchor.maps[len(anchor.lhs) : len(anchor.lhs) + len(anchor.rhs)]
    if not any(m.symbols & set(batch) for m in rhs):
        return {"fb": (), "fm": (*batch, "m"), "fn": ("n",), "fk": reduce}
    if not any(m.symbols & set(batch) for m in lhs):
        return {"fb": (), "fm": ("m",), "fn": (*batch, "n"), "fk": reduce}
    return {"fb": batch, "fm": ("m",), "fn": ("n",), "fk": reduce}


def no_operand(problem: Func) -> str | None:
    """The sentence for a contraction of which one factor is a number that no operand holds, else None."""
    anchor = problem.anchor
    assert isinstance(anchor, Contraction)
    return None if anchor.lhs and anchor.rhs else "one of its factors is the same number everywhere"


class View:
    """A contraction as a batched GEMM over one unit."""

    def __init__(self, problem: Func, target: Target, entry: str, swapped: bool | None = None) -> None:
        anchor = problem.anchor
        assert isinstance(anchor, Contraction)
        self.anchor = anchor
        flat = flat_dims(problem)
        self.unit = Unit(problem, target, entry, flat)
        if swapped is None:
            swapped = not problem.symbols and self.store_width() == 1 and self._rows_consecutive()
        self.swapped = swapped
        if swapped:
            flat = {"fb": flat["fb"], "fm": flat["fn"], "fn": flat["fm"], "fk": flat["fk"]}
            self.unit = Unit(problem, target, entry, flat)
        e: dict[str, Any] = self.unit.sizes
        self.batch, self.m, self.n, self.k = e["fb"], e["fm"], e["fn"], e["fk"]
        lhs = tuple(range(len(anchor.lhs)))
        rhs = tuple(range(len(lhs), len(lhs) + len(anchor.rhs)))
        self.extra = tuple(range(len(lhs) + len(rhs), len(anchor.operands)))
        first, second = (anchor.lhs_body, lhs), (anchor.rhs_body, rhs)
        if swapped:
            first, second = second, first
        self.a = self._side(*first, "fm")
        self.b = self._side(*second, "fn")

    @property
    def acc(self) -> DType:
        return self.anchor.acc

    def _side(self, region: Region, operands: Sequence[int], dim: str) -> Side:
        access = self.unit.operand(operands[0])
        for along_k, along in ((True, "fk"), (False, dim)):
            width = self.vector_width(access, along)
            if width > 1:
                return Side(region, tuple(operands), dim, width, along_k)
        # One element at a time: along the dim whose neighbours are nearest, so that a warp reads few lines.
        steps = [abs(access.stride(d) or 1 << 40) for d in ("fk", dim)]
        return Side(region, tuple(operands), dim, 1, steps[0] <= steps[1])

    def vector_width(self, access: Access, dim: str, most: int = 16) -> int:
        """The most consecutive elements along dim that one aligned load of ≤ `most` bytes takes everywhere; 1: none."""
        width = max(1, most // access.dtype.bytes)
        while width > 1 and (self.unit.extents.get(dim, 1) % width or access.pattern(dim, width) != "vector"):
            width //= 2
        return width

    def store_width(self, most: int = 16) -> int:
        """How many consecutive fn one store of the first result takes everywhere."""
        return self.vector_width(self.unit.result(0), "fn", most)

    def _rows_consecutive(self) -> bool:
        result = self.unit.result(0)
        return self.vector_width(result, "fm") > 1 or (result.stride("fm") == 1 and result.stride("fn") != 1)

    def define_readers(self, a_width: int, b_width: int) -> None:
        """`tcc_read_a(args, x_fb, x_fm, x_fk, out)` and `tcc_read_b(args, x_fb, x_fn, x_fk, out)`."""
        for name, side, width in (("tcc_read_a", self.a, a_width), ("tcc_read_b", self.b, b_width)):
            vector = ("fk" if side.along_k else side.dim, width) if width > 1 else None
            self.unit.reader(name, side.region, side.operands, ("fb", side.dim, "fk"), self.acc, vector)

    def define_epilogue(self, width: int) -> None:
        """`tcc_epilogue(args, x_fb, x_fm, x_fn, acc)` for `width` consecutive fn."""
        vector = ("fn", width) if width > 1 else None
        self.unit.writer("tcc_epilogue", self.anchor.epilogue, [self.acc], self.extra, ("fb", "fm", "fn"), vector)
