# SPDX-License-Identifier: Apache-2.0
"""Reductions over rectangles of pictures that data decide."""

from __future__ import annotations

from collections.abc import Sequence

from tcc import reference as _ref
from tcc.ir.declare import Attr, Operand, OptionalOperand, Result, one_of, register
from tcc.ir.graph.base import Array, GraphOp, check_equal_dim, dense, optional, present, same_dtype
from tcc.ir.graph.base import tensor_type as type_of
from tcc.ir.types import Type


@register
class RegionReduce(GraphOp):
    """Sums or maxima over rectangles of pictures x [n, h, w, c]: bin (i, j) of region k covers the rows from
    rows[k, i, 0] to rows[k, i, 1] - 1 and the columns from columns[k, j, 0] to columns[k, j, 1] - 1 of picture
    batch[k] (a number outside of [0, n) wraps around); what is outside of the picture does not count. Elements are
    multiplied by row_weights [k, i, h] and column_weights [k, j, w]. An empty rectangle gives 0.

    Integers batch [k], rows [k, i, 2], columns [k, j, 2] → [k, i, j, c]. Of ONNX RoiAlign and MaxRoiPool.
    """

    name = "graph.region_reduce"
    category = "irregular"
    x = Operand()
    batch = Operand()
    rows = Operand()
    columns = Operand()
    row_weights = OptionalOperand()
    column_weights = OptionalOperand()
    kind = Attr(one_of("sum", "max"), "sum")
    y = Result()

    def infer(self) -> Sequence[Type]:
        x, batch, rows, columns = (self.operand_type(i) for i in range(4))
        if x.rank != 4 or not x.dtype.is_float or batch.rank != 1:
            raise self.fail(f"x and batch must be [n, h, w, c] of floats and [k], not {x} and {batch}")
        for t, weights, extent in ((rows, self.row_weights, x.shape[1]), (columns, self.column_weights, x.shape[2])):
            if t.rank != 3 or not t.dtype.is_int or not batch.dtype.is_int or t.shape[2] != 2:
                raise self.fail(f"bounds must be integers [k, bins, 2], not {t}")
            check_equal_dim(self, t.shape[0], batch.shape[0], "the regions of bounds and batch")
            if weights is not None:
                w = type_of(weights, self)
                same_dtype(self, x, w)
                if w.rank != 3:
                    raise self.fail(f"weights must be [k, bins, extent], not {w}")
                for a, b in zip(w.shape, (t.shape[0], t.shape[1], extent), strict=True):
                    check_equal_dim(self, a, b, "weights")
        return (dense((batch.shape[0], rows.shape[1], columns.shape[1], x.shape[3]), x.dtype),)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, batch, rows, columns = (present(a) for a in arrays[:4])
        of_rows, of_columns = optional(arrays, 4), optional(arrays, 5)
        return (_ref.region_reduce(x, batch, rows, columns, of_rows, of_columns, kind=self.kind),)
