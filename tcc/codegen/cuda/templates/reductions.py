# SPDX-License-Identifier: Apache-2.0
"""What the reduction templates share: the flat unit and the generated functions of `reduce.cuh` and `pool.cuh`."""

from __future__ import annotations

from tcc.codegen.cuda.emit import Unit, codec, register
from tcc.codegen.cuda.emit.combine import identity, step
from tcc.codegen.cuda.emit.order import by_stride
from tcc.codegen.cuda.emit.unit import function
from tcc.ir.kernel import Func, Reduce
from tcc.ir.targets import Target


def reduction_unit(problem: Func, target: Target, entry: str = "unnamed") -> Unit:
    """A unit over fp (kept points, in the first result's order) and fr (reduced ones, in the first operand's)."""
    anchor = problem.anchor
    plain = Unit(problem, target, entry)
    keep = by_stride(plain.result(0), anchor.domain.parallel_names)
    reduced = anchor.domain.reduce_names
    if len(anchor.operands):
        reduced = by_stride(plain.operand(0), reduced)
    return Unit(problem, target, entry, {"fp": keep, "fr": reduced})


def define_reduction(unit: Unit, keep: int, reduced: int) -> None:
    """tcc_identity, tcc_combine, tcc_read and tcc_epilogue for `keep` points or `reduced` reduced ones at a time."""
    anchor = unit.anchor
    assert isinstance(anchor, Reduce)
    acc = anchor.acc
    value, count = register(acc), len(anchor.combine)
    unit.define(NC=count, Acc=codec(acc))
    start = [f"acc[{i}] = {identity(c, acc)};" for i, c in enumerate(anchor.combine)]
    steps = [f"acc[{i}] = {step(c, f'acc[{i}]', f'v[{i}]', acc)};" for i, c in enumerate(anchor.combine)]
    unit.add(function("tcc_identity", f"{value} (&acc)[{count}]", start))
    unit.add(function("tcc_combine", f"{value} (&acc)[{count}], const {value} (&v)[{count}]", steps))
    width = max(keep, reduced)
    vector = ("fp", keep) if keep > 1 else ("fr", reduced) if reduced > 1 else None
    ins = range(len(anchor.ins))
    unit.reader("tcc_read_each", anchor.body, ins, ("fp", "fr"), [acc] * count, vector)
    outs = ", ".join(f"out[{i}]" for i in range(count))
    params = f"const Args& args, {unit.parameters(('fp', 'fr'))}"
    text = f"tcc_read_each(args, x_fp, x_fr, {outs});"
    unit.add(function("tcc_read", f"{params}, {value} (&out)[{count}][{width}]", [text]))
    extra = range(len(anchor.ins), len(anchor.operands))
    unit.writer("tcc_epilogue_each", anchor.epilogue, [acc] * count, extra, ("fp",), ("fp", keep) if keep > 1 else None)
    accs = ", ".join(f"acc[{i}]" for i in range(count))
    params = f"const Args& args, {unit.parameters(('fp',))}, const {value} (&acc)[{count}][{keep}]"
    unit.add(function("tcc_epilogue", params, [f"tcc_epilogue_each(args, x_fp, {accs});"]))


def widest(unit: Unit, dim: str, most: int = 16) -> int:
    """The widest vector of the first operand along dim (≤ `most` bytes) that divides the dim; 1 for none."""
    access = unit.operand(0)
    width = max(1, most // access.dtype.bytes)
    while width > 1 and (unit.extents[dim] % width or access.pattern(dim, width) != "vector"):
        width //= 2
    return width
