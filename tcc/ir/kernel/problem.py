# SPDX-License-Identifier: Apache-2.0
"""Problems: what the tuner tunes. A problem is an unscheduled `kernel.func` in canonical form.

No names, no loc; literals other than 0 and ±1 become parameters of the problem's text (`?`), as their value does not
change which kernel is fast. Extents, strides, alignment, constness and numerics stay. Equal texts are one problem.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from tcc.ir.arith import Constant
from tcc.ir.core import Op
from tcc.ir.kernel.func import Func
from tcc.ir.printer import Printer

KEY_LENGTH = 32
"""Hex digits of a problem key."""


def canonical(func: Func) -> Func:
    """A detached, unscheduled copy without names, hints or locs; literals keep their values."""
    copy = func.clone()
    assert isinstance(copy, Func)
    copy.attrs.update(sym_name="problem", template="", config={}, derived={})
    for name in [n for n in copy.attrs if "." in n]:
        del copy.attrs[name]
    for op in copy.walk():
        op.loc = ()
        for r in op.results:
            r.hint = None
        for region in op.regions:
            for block in region.blocks:
                for a in block.args:
                    a.hint = None
    return copy


def problem_text(func: Func) -> str:
    """The canonical text that the key hashes: as `canonical`, with literals other than 0 and ±1 written `?`."""
    copy = canonical(func)
    for op in copy.walk():
        if isinstance(op, Constant) and op.value not in (0, 1, -1):
            op.attrs["value"] = "?"
    printer = Printer(locations=False)
    printer.op(copy)
    return printer.text()


def problem_key(func: Func) -> str:
    """The first 32 hex digits of the sha256 of the problem's text."""
    return hashlib.sha256(problem_text(func).encode()).hexdigest()[:KEY_LENGTH]


def literals(func: Func) -> tuple[float | int, ...]:
    """The literals that `problem_text` leaves out, in order: kernels of one problem differ only in these."""
    out: list[float | int] = []
    for op in func.walk():
        if isinstance(op, Constant) and op.value not in (0, 1, -1):
            out.append(op.value)
    return tuple(out)


@lru_cache(maxsize=4096)
def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def kernel_key(func: Func) -> str:
    """Names one kernel's code: the problem, its literals, its template and config. 32 hex digits."""
    text = f"{problem_text(func)}|{literals(func)!r}|{func.template}|{sorted(func.config.items())!r}"
    return _digest(text)[:KEY_LENGTH]


def kernels_of(module: Op) -> list[Func]:
    """The kernels of a module, in order."""
    return [op for op in module.regions[0].block.ops if isinstance(op, Func)]
