# SPDX-License-Identifier: Apache-2.0
"""Scalar regions (`arith`, `math`) as C++ statements and device functions, with exactly the meaning `evaluate` has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcc.codegen.cuda.emit.dtypes import codec, literal, register
from tcc.ir import arith
from tcc.ir.core import Op, Region, Value
from tcc.ir.kernel import Index, Yield
from tcc.ir.scalar import ScalarOp, element
from tcc.ir.types import BOOL, DType

_PREDICATES = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_INFIX = {"arith.add": "+", "arith.sub": "-", "arith.mul": "*", "arith.div": "/"}
_BITS = {"arith.and": "&", "arith.or": "|", "arith.xor": "^"}


def region_indices(region: Region) -> tuple[str, ...]:
    """The domain dims whose coordinate the region asks for, each once."""
    return tuple(dict.fromkeys(op.dim for op in region.block.ops if isinstance(op, Index)))


def used_arguments(region: Region) -> tuple[bool, ...]:
    """Whether each argument of the region has a use."""
    return tuple(a.use_count > 0 for a in region.block.args)


def yielded(region: Region) -> list[DType]:
    """Element types of what the region yields."""
    return [element(v) for v in region.block.terminator.operands]


def inline_region(
    region: Region, args: Sequence[str], indices: Mapping[str, str], prefix: str, stored: bool = False
) -> tuple[list[str], list[str]]:
    """(statements, the C++ expressions of what the region yields).

    `args`: C++ expressions of the arguments, in register types; `indices`: of the domain dims. Variables the statements
    declare start with `prefix`. `stored`: what is yielded goes to memory and nowhere else, which rounds it.
    """
    env: dict[Value, str] = dict(zip(region.block.args, args, strict=True))
    lines: list[str] = []
    count = 0
    for op in region.block.ops:
        if isinstance(op, Yield):
            return lines, [env[v] for v in op.operands]
        result = op.results[0]
        if isinstance(op, arith.Constant):
            env[result] = literal(op.value, element(result))
            continue
        text = f"static_cast<long long>({indices[op.dim]})" if isinstance(op, Index) else _expression(op, env)
        if isinstance(op, arith.Cast) and not (stored and all(isinstance(u, Yield) for u in result.users)):
            text = rounded(text, element(result))
        name = f"{prefix}{count}"
        count += 1
        lines.append(f"const {register(element(result))} {name} = {text};")
        env[result] = name
    raise AssertionError("a region without kernel.yield")


def rounded(text: str, dtype: DType) -> str:
    """The expression with the digits that its element type has: registers of narrow floats hold more."""
    if not dtype.is_float or dtype.bits >= 32:
        return text
    return f"{codec(dtype)}::load({codec(dtype)}::store({text}))"


def _expression(op: Op, env: Mapping[Value, str]) -> str:
    assert isinstance(op, ScalarOp)
    args = [env[v] for v in op.operands]
    d = element(op.results[0])
    if isinstance(op, arith.Cmp):
        return f"{args[0]} {_PREDICATES[op.predicate]} {args[1]}"
    if isinstance(op, arith.Select):
        return f"{args[0]} ? {args[1]} : {args[2]}"
    if isinstance(op, arith.Cast):
        return f"tcc::cast<{codec(d)}, {codec(element(op.a))}>({args[0]})"
    if op.name == "arith.neg":
        return f"-{args[0]}" if d.is_float else f"tcc::ineg<{codec(d)}>({args[0]})"
    if op.name == "arith.not":
        return f"!{args[0]}" if d == BOOL else f"{codec(d)}::wrap(~{args[0]})"
    if op.name in _BITS:
        return f"{codec(d)}::wrap({args[0]} {_BITS[op.name]} {args[1]})"
    if op.name in _INFIX and d.is_float:
        return f"{args[0]} {_INFIX[op.name]} {args[1]}"
    dialect, word = op.name.split(".")
    if dialect == "arith" and word not in ("min", "max") and not d.is_float:
        return f"tcc::i{word}<{codec(d)}>({', '.join(args)})"
    if op.name in ("math.abs", "math.sign") and not d.is_float:
        return f"tcc::i{word}<{codec(d)}>({args[0]})"
    if word in ("min", "max"):  # a literal among the arguments has a type of its own
        return f"tcc::arith_{word}<{register(d)}>({', '.join(args)})"
    return f"tcc::{dialect}_{word}({', '.join(args)})"


@dataclass(frozen=True)
class RegionFunction:
    """A device function `void name(results by reference…, arguments…, coordinates as long long…)`."""

    name: str
    text: str
    results: tuple[DType, ...]
    indices: tuple[str, ...]

    def call(self, results: Sequence[str], args: Sequence[str], indices: Mapping[str, str]) -> str:
        """A statement that calls it."""
        return f"{self.name}({', '.join([*results, *args, *(indices[i] for i in self.indices)])});"


def emit_region(region: Region, name: str) -> RegionFunction:
    """The region as a device function."""
    dtypes = yielded(region)
    indices = region_indices(region)
    args = [f"a{i}" for i in range(len(region.block.args))]
    params = [f"{register(d)}& r{i}" for i, d in enumerate(dtypes)]
    params += [f"const {register(element(v))} {a}" for a, v in zip(args, region.block.args, strict=True)]
    params += [f"const long long x_{d}" for d in indices]
    lines, values = inline_region(region, args, {d: f"x_{d}" for d in indices}, "t")
    lines += [f"r{i} = {v};" for i, v in enumerate(values)]
    body = "\n".join(f"  {line}" for line in lines)
    text = f"__device__ __forceinline__ void {name}({', '.join(params)}) {{\n{body}\n}}\n"
    return RegionFunction(name, text, tuple(dtypes), indices)
