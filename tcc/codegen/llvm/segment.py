# SPDX-License-Identifier: Apache-2.0
"""The segment function of a CPU engine: every worker walks all launches of a segment, each doing its share of every
one.

``void segment(i64 *table, i64 worker, i64 workers, i8 *team)`` (spec/engine.md, section 5). Between two ops that
conflict, meaning one writes bytes that the other touches, all workers meet in a barrier; where ops do not conflict, a
fast worker runs ahead. A *serial* op is done by worker 0 alone, so two of them in a row need no barrier either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from tcc.codegen.llvm.pool import team_functions

Expr = Any
Op = Mapping[str, Any]

_FLOATS = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
_SPLIT_FROM = 1 << 16  # bytes from which a memset or copy is shared by the workers
_LINE = 64
_LONGEST = 256
"""Ops of a segment that go into one LLVM function."""

_ARITHMETIC = """\
define internal i64 @tcc_floordiv(i64 %a, i64 %b) alwaysinline {
  %safe = call i64 @tcc_divisor(i64 %b)
  %quotient = sdiv i64 %a, %safe
  %rest = srem i64 %a, %safe
  %inexact = icmp ne i64 %rest, 0
  %mixed = xor i64 %rest, %safe
  %apart = icmp slt i64 %mixed, 0
  %down = and i1 %inexact, %apart
  %one = zext i1 %down to i64
  %result = sub i64 %quotient, %one
  ret i64 %result
}

define internal i64 @tcc_mod(i64 %a, i64 %b) alwaysinline {
  %quotient = call i64 @tcc_floordiv(i64 %a, i64 %b)
  %safe = call i64 @tcc_divisor(i64 %b)
  %whole = mul i64 %quotient, %safe
  %result = sub i64 %a, %whole
  ret i64 %result
}

; An extent of 0 makes its tensor empty, and whatever is divided by it unused: 1 in its place avoids the trap.
define internal i64 @tcc_divisor(i64 %b) alwaysinline {
  %zero = icmp eq i64 %b, 0
  %safe = select i1 %zero, i64 1, i64 %b
  ret i64 %safe
}

declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""


@dataclass(frozen=True)
class EngineTables:
    """The parts of an engine's manifest that its native code depends on."""

    buffers: Sequence[Mapping[str, Any]]
    kernels: Mapping[str, Mapping[str, Any]]
    symbols: Sequence[Mapping[str, Any]] = ()
    inputs: int = 0
    outputs: int = 0

    def slots(self) -> dict[Any, int]:
        """The table slot of each base ("arena", "weight", ("input", i), ("output", i), ("pool", id)) and of each
        symbol's name.
        """
        keys: list[Any] = ["arena", "weight"]
        keys += [("input", i) for i in range(self.inputs)] + [("output", i) for i in range(self.outputs)]
        keys += [("pool", i) for i, buffer in enumerate(self.buffers) if buffer["space"] == "pool"]
        keys += [symbol["name"] for symbol in self.symbols]
        return {key: slot for slot, key in enumerate(keys)}


def native_module(tables: EngineTables, schedule: Sequence[Op], triple: str) -> str:
    """LLVM IR text of an engine's native object: the team's functions and one function for each segment of the
    schedule.
    """
    segments = list(_segments(schedule))
    entries = sorted(
        {tables.kernels[op["kernel"]]["entry"] for s in segments for op in s["body"] if op["op"] == "launch"}
    )
    text = [f'target triple = "{triple}"\n', team_functions(triple), _ARITHMETIC]
    text += [f'declare void @"{entry}"(ptr, i64, i64)' for entry in entries]
    text += [_Segment(tables, op).text() for op in segments]
    return "\n".join(text) + "\n"


def barriers(tables: EngineTables, segment: Op) -> list[int]:
    """Indices of the ops of a segment that are preceded by a barrier."""
    found: list[int] = []
    pending: list[_Access] = []
    for index, op in enumerate(segment["body"]):
        access = _access(tables, op)
        if any(access.conflicts(other) for other in pending):
            found.append(index)
            pending = []
        pending.append(access)
    return found


def _segments(ops: Sequence[Op]) -> Iterator[Op]:
    for op in ops:
        if op["op"] == "segment":
            yield op
        else:
            for part in ("body", "then", "else"):
                yield from _segments(op.get(part, ()))


@dataclass(frozen=True)
class _Range:
    """Bytes of a base that an op touches; `start` is None where symbols decide. `rows` (period, width): only the first
    `width` of every `period` bytes."""

    base: Any
    start: int | None
    stop: int
    rows: tuple[int, int] | None = None

    def overlaps(self, other: _Range) -> bool:
        if self.base != other.base:
            return False
        if self.start is None or other.start is None:
            return True
        return self.start < other.stop and other.start < self.stop and not self._beside(other)

    def _beside(self, other: _Range) -> bool:
        """Whether the two lie in different columns of the same rows."""
        if self.rows is None or other.rows is None or self.rows[0] != other.rows[0]:
            return False
        assert self.start is not None and other.start is not None
        period = self.rows[0]
        a, b = self.start % period, other.start % period
        ends = a + self.rows[1], b + other.rows[1]
        return max(ends) <= period and (ends[0] <= b or ends[1] <= a)


@dataclass(frozen=True)
class _Access:
    reads: tuple[_Range, ...]
    writes: tuple[_Range, ...]
    serial: bool

    def conflicts(self, other: _Access) -> bool:
        if self.serial and other.serial:
            return False
        pairs = [(self.writes, other.writes), (self.writes, other.reads), (self.reads, other.writes)]
        return any(a.overlaps(b) for left, right in pairs for a in left for b in right)


def _is_serial(op: Op) -> bool:
    if op["op"] == "launch":
        return bool(op.get("serial"))
    return isinstance(op["bytes"], int) and op["bytes"] < _SPLIT_FROM


def _access(tables: EngineTables, op: Op) -> _Access:
    if op["op"] == "launch":
        reads = tuple(_buffer_range(tables, i) for i in op["reads"])
        writes = tuple(_buffer_range(tables, i) for i in op["writes"])
    else:
        reads = (_place_range(tables, op["src"], op["bytes"]),) if op["op"] == "copy" else ()
        writes = (_place_range(tables, op["dst"], op["bytes"]),)
    return _Access(reads, writes, _is_serial(op))


def _base(tables: EngineTables, index: int) -> tuple[Any, list[Expr]]:
    """The base that a buffer counts from, and the byte offsets to add up."""
    buffer, offsets = tables.buffers[index], list[Expr]()
    if buffer["space"] == "view":
        offsets.append(buffer["offset"])
        index = buffer["of"]
        buffer = tables.buffers[index]
    space = buffer["space"]
    if space in ("arena", "weight"):
        return space, [buffer["offset"], *offsets]
    if space in ("input", "output"):
        return (space, buffer["position"]), offsets
    return ("pool", index), offsets


def _range(base: Any, offsets: list[Expr], nbytes: Expr, rows: Sequence[int] | None = None) -> _Range:
    if all(isinstance(e, int) for e in (*offsets, nbytes)):
        start = sum(offsets)
        return _Range(base, start, start + nbytes, None if rows is None else (rows[0], rows[1]))
    return _Range(base, None, 0)


def _buffer_range(tables: EngineTables, index: int) -> _Range:
    base, offsets = _base(tables, index)
    return _range(base, offsets, tables.buffers[index]["bytes"], tables.buffers[index].get("rows"))


def _place_range(tables: EngineTables, place: Mapping[str, Any], nbytes: Expr) -> _Range:
    base, offsets = _base(tables, place["buffer"])
    return _range(base, [*offsets, place.get("offset", 0)], nbytes)


def scalar_bits(value: Any, dtype: str) -> int:
    """The 64-bit slot (as a signed integer) of a constant scalar parameter: a float's bits in the low bytes, zeros
    above.
    """
    if dtype in _FLOATS:
        content = np.array(float(value), _FLOATS[dtype]).tobytes()
        return int.from_bytes(content.ljust(8, b"\0"), "little", signed=True)
    return int(value)


@dataclass
class _Segment:
    """Writes one segment function."""

    tables: EngineTables
    op: Op
    lines: list[str] = field(default_factory=list[str])
    names: int = 0
    used: dict[Any, str] = field(default_factory=dict[Any, str])
    single: int = 0
    """Launches of one task since the last barrier, which go to one worker after another."""

    def text(self) -> str:
        """The function, or for a long segment one that calls a function for every part: LLVM's time (and patience)
        for one function grows faster than its length."""
        before = set(barriers(self.tables, self.op))
        body: list[Op] = self.op["body"]
        starts = range(0, len(body), _LONGEST) if len(body) > _LONGEST else [0]
        texts: list[str] = []
        for start in starts:
            self.lines, self.names, self.used = [], 0, {}
            for index, op in enumerate(body[start : start + _LONGEST] if len(starts) > 1 else body, start):
                if index in before:
                    self.single = 0
                    self.lines.append("  call void @tcc_barrier(ptr %team, i64 %workers)")
                self._comment(op)
                getattr(self, f"_{op['op']}")(op)
            texts.append(self._function(f"{self.op['name']}.{start}" if len(starts) > 1 else self.op["name"]))
        if len(starts) == 1:
            return texts[0]
        texts = [t.replace("define void", "define internal void", 1).replace(" nounwind", " noinline nounwind", 1)
                 for t in texts]  # fmt: skip
        calls = [
            f'  call void @"{self.op["name"]}.{start}"(ptr %table, i64 %worker, i64 %workers, ptr %team)'
            for start in starts
        ]
        return "\n".join([*texts, self._head(self.op["name"]), "entry:", *calls, "  ret void", "}", ""])

    def _head(self, name: str) -> str:
        return f'define void @"{name}"(ptr %table, i64 %worker, i64 %workers, ptr %team) nounwind {{'

    def _function(self, name: str) -> str:
        slots = self.tables.slots()
        params = max((len(op["params"]) for op in self.op["body"] if op["op"] == "launch"), default=0)
        head = [self._head(name), "entry:"]
        head.append(f"  %args = alloca [{max(params, 1)} x i64], align 8")
        head += ["  %after = add i64 %worker, 1", "  %head = icmp eq i64 %worker, 0"]
        for key, slot in self.used.items():
            kind = "i64" if isinstance(key, str) and key not in ("arena", "weight") else "ptr"
            head.append(f"  {slot}.slot = getelementptr i64, ptr %table, i64 {slots[key]}")
            head.append(f"  {slot} = load {kind}, ptr {slot}.slot, align 8")
        return "\n".join([*head, *self.lines, "  ret void", "}", ""])

    def _comment(self, op: Op) -> None:
        # The manifest says which nodes it comes from: names of a model stand in no source.
        self.lines.append(f"  ; {op['op']} {op.get('kernel', '')}".rstrip())

    def _new(self, text: str) -> str:
        self.names += 1
        self.lines.append(f"  %v{self.names} = {text}")
        return f"%v{self.names}"

    def _slot(self, key: Any) -> str:
        if key not in self.used:
            self.used[key] = f"%s{len(self.used)}"
        return self.used[key]

    def _expr(self, expr: Expr) -> str:
        if isinstance(expr, int):
            return str(expr)
        if isinstance(expr, str):
            return self._slot(expr)
        operator, *operands = expr
        values = [self._expr(e) for e in operands]
        if operator == "neg":
            return self._new(f"sub i64 0, {values[0]}")
        if operator == "ceildiv":  # -(-a // b)
            negative = self._new(f"sub i64 0, {values[0]}")
            floor = self._new(f"call i64 @tcc_floordiv(i64 {negative}, i64 {values[1]})")
            return self._new(f"sub i64 0, {floor}")
        result = values[0]
        for value in values[1:]:
            result = self._new(
                {
                    "add": f"add i64 {result}, {value}",
                    "sub": f"sub i64 {result}, {value}",
                    "mul": f"mul i64 {result}, {value}",
                    "floordiv": f"call i64 @tcc_floordiv(i64 {result}, i64 {value})",
                    "mod": f"call i64 @tcc_mod(i64 {result}, i64 {value})",
                    "min": f"call i64 @llvm.smin.i64(i64 {result}, i64 {value})",
                    "max": f"call i64 @llvm.smax.i64(i64 {result}, i64 {value})",
                }[operator]
            )
        return result

    def _place(self, place: Mapping[str, Any]) -> str:
        base, offsets = _base(self.tables, place["buffer"])
        offsets = [*offsets, place.get("offset", 0)]
        constant = sum(e for e in offsets if isinstance(e, int))
        rest = [e for e in offsets if not isinstance(e, int)]
        offset = self._expr(["add", constant, *rest]) if rest else str(constant)
        pointer = self._slot(base)
        return pointer if offset == "0" else self._new(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    def _guarded(self, condition: str, body: list[str]) -> None:
        self.names += 1
        label = self.names
        self.lines.append(f"  br i1 {condition}, label %do{label}, label %past{label}")
        self.lines += [f"do{label}:", *body, f"  br label %past{label}", f"past{label}:"]

    def _share(self, total: str) -> tuple[str, str]:
        """This worker's part [first, last) of `total` units."""
        bounds: list[str] = []
        for worker in ("%worker", "%after"):
            scaled = self._new(f"mul i64 {total}, {worker}")
            bounds.append(self._new(f"udiv i64 {scaled}, %workers"))
        return bounds[0], bounds[1]

    def _launch(self, op: Op) -> None:
        entry = self.tables.kernels[op["kernel"]]["entry"]
        for i, param in enumerate(op["params"]):
            slot = "%args" if i == 0 else self._new(f"getelementptr i64, ptr %args, i64 {i}")
            if "buffer" in param:
                self.lines.append(f"  store ptr {self._place(param)}, ptr {slot}, align 8")
                continue
            if "scalar" not in param:
                raise ValueError(
                    f"a CPU launch of {op['kernel']} has a parameter {param!r}: only places and scalars are possible"
                )
            value, dtype = param["scalar"], param["dtype"]
            if dtype in _FLOATS or not isinstance(value, int | str | list):
                value = scalar_bits(value, dtype)
            self.lines.append(f"  store i64 {self._expr(value)}, ptr {slot}, align 8")
        tasks = self._expr(op["tasks"])
        if op.get("serial"):
            self._guarded("%head", [f'  call void @"{entry}"(ptr %args, i64 0, i64 {tasks})'])
            return
        waves = op.get("waves", 1)
        if waves > 1:
            each = self._new(f"udiv i64 {tasks}, {waves}")
            team = "i64 %worker, i64 %workers, ptr %team"
            self.lines.append(f'  call void @tcc_waves(ptr @"{entry}", ptr %args, i64 {each}, i64 {waves}, {team})')
            return
        if tasks == "1":
            turn = self._new(f"urem i64 {self.single}, %workers")
            mine = self._new(f"icmp eq i64 %worker, {turn}")
            self._guarded(mine, [f'  call void @"{entry}"(ptr %args, i64 0, i64 1)'])
            self.single += 1
            return
        first, last = self._share(tasks)
        some = self._new(f"icmp ult i64 {first}, {last}")
        self._guarded(some, [f'  call void @"{entry}"(ptr %args, i64 {first}, i64 {last})'])

    def _part(self, op: Op) -> tuple[str, str, str]:
        """(condition, offset, bytes) of this worker's part of a memset or copy."""
        nbytes = self._expr(op["bytes"])
        if _is_serial(op):
            return "%head", "0", nbytes
        rounded = self._new(f"add i64 {nbytes}, {_LINE - 1}")
        lines = self._new(f"lshr i64 {rounded}, {int(math.log2(_LINE))}")
        first, last = self._share(lines)
        start = self._new(f"mul i64 {first}, {_LINE}")
        far = self._new(f"mul i64 {last}, {_LINE}")
        stop = self._new(f"call i64 @llvm.smin.i64(i64 {far}, i64 {nbytes})")
        size = self._new(f"sub i64 {stop}, {start}")
        return self._new(f"icmp sgt i64 {size}, 0"), start, size

    def _memset(self, op: Op) -> None:
        condition, offset, size = self._part(op)
        target = self._new(f"getelementptr i8, ptr {self._place(op['dst'])}, i64 {offset}")
        call = f"  call void @llvm.memset.p0.i64(ptr {target}, i8 {op['value']}, i64 {size}, i1 false)"
        self._guarded(condition, [call])

    def _copy(self, op: Op) -> None:
        condition, offset, size = self._part(op)
        target = self._new(f"getelementptr i8, ptr {self._place(op['dst'])}, i64 {offset}")
        source = self._new(f"getelementptr i8, ptr {self._place(op['src'])}, i64 {offset}")
        call = f"  call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {size}, i1 false)"
        self._guarded(condition, [call])
