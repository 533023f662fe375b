# SPDX-License-Identifier: Apache-2.0
"""A trial: one candidate as a one-kernel engine, with the data that it is checked and timed on.

The engine's inputs and outputs are plain bytes, constants among the inputs, so an engine is small and the data, packed
where the candidate wants it packed, goes to the worker once a problem. On the CPU the counts of tasks are symbols
that empty inputs bind: then candidates share the native object that calls them, which costs as much to compile as a
small kernel.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tcc.codegen.template import Emitted, Launch, Packing
from tcc.compiler.emit_engine import compile_kernels, launch_row
from tcc.compiler.emitted import emit, packings
from tcc.compiler.engine_writer import EngineContent, to_bytes
from tcc.compiler.phases.pack_constants import pack_values
from tcc.compiler.search.enumerate import Candidate
from tcc.compiler.targets import engine_target, llvm_target
from tcc.errors import FailureError
from tcc.ir.expr import evaluate as eval_expr
from tcc.ir.expr import symbols
from tcc.ir.kernel import Contraction, Func
from tcc.ir.kernel.evaluate import Expected, evaluate
from tcc.ir.kernel.problem import canonical
from tcc.ir.kernel.symbols import bind, tuning
from tcc.ir.targets import Target
from tcc.ir.types import TensorType

Array = np.ndarray[Any, Any]
Json = dict[str, Any]
POINTS = 4000
"""About how many elements of each result are checked."""
REPEAT = 4_194_301
"""Random floats come again after so many, a prime that no extent divides."""
COMPILE_SECONDS = 20.0
"""How long a candidate's code may take to compile."""


@dataclass
class Case:
    """A problem with data: `operands` as the kernel's arguments see them, `flat` their elements in memory from the
    first to the last, and what must come out. `func` has its symbols bound to `extents`, `problem` has not."""

    func: Func
    operands: list[Array]
    flat: list[Array]
    expected: list[Expected]
    problem: Func
    extents: dict[str, int]
    packed: dict[str, Array] = field(default_factory=dict[str, Array])
    """Packed constants by the key that trials name them with."""

    def array(self, key: str) -> tuple[Array, int, bool]:
        """(elements, alignment in bytes, whether it is a constant) of what a trial's input names."""
        if key in self.packed:
            return self.packed[key], 64, True
        i = int(key)
        return self.flat[i], self.func.arg_types[i].align, self.func.is_const(i)


@dataclass(frozen=True)
class Trial:
    """An engine with the key of the array that each of its inputs takes, and the lengths of its empty inputs."""

    engine: bytes
    inputs: dict[str, str]
    lengths: dict[str, int]


def make_case(func: Func, seed: int = 0, points: int = POINTS) -> Case:
    """Seeded data for a problem, and the oracle's answer."""
    problem, extents = func, tuning(func)
    func = bind(func, extents)
    rng = np.random.default_rng(zlib.crc32(f"{func.sym_name}|{seed}".encode()))
    limits = index_limits(func)
    scales = _scales(func)
    operands: list[Array] = []
    flats: list[Array] = []
    for i, t in enumerate(func.arg_types):
        flat = _random(t, span(t), limits.get(i), scales.get(i, 1.0), rng)
        steps = [int(s) * t.dtype.bytes for s in t.element_strides]  # pyright: ignore[reportArgumentType]
        operands.append(np.lib.stride_tricks.as_strided(flat, t.static_shape, steps))
        flats.append(flat)
    with np.errstate(all="ignore"):
        expected = evaluate(func, operands, points, seed)
    return Case(func, operands, flats, expected, problem, extents)


def span(t: TensorType) -> int:
    """Elements from the first to the last of a tensor that may be strided."""
    if 0 in t.static_shape:
        return 0
    return 1 + sum((d - 1) * int(s) for d, s in zip(t.static_shape, t.element_strides, strict=True))  # pyright: ignore


def index_limits(func: Func) -> dict[int, int]:
    """For operands whose values are used as indices: how many values from 0 on keep every index in range."""
    limits: dict[int, int] = {}
    args = list(func.body.block.args)
    for anchor in func.anchors():
        extents = {n: anchor.domain.int_extent(n) for n in anchor.domain.names}
        for value, access in zip(anchor.operands, anchor.maps, strict=True):
            shape = value.type.static_shape if isinstance(value.type, TensorType) else ()
            for e, extent in zip(access.results, shape, strict=True):
                for s in symbols(e):
                    source = anchor.operands[int(s[1:])] if s.startswith("$") else None
                    if source is not None and source in args:
                        at = args.index(source)  # pyright: ignore[reportArgumentType]
                        limits[at] = min(limits.get(at, extent), _limit(e, extent, extents, access.fill is not None))
    return limits


def _limit(e: Any, extent: int, extents: dict[str, int], filled: bool) -> int:
    """The largest number of index values that keeps `e` inside the extent; a fill makes all of them right."""
    limit = max(1, extent)
    while limit > 1 and not filled:
        ends = {s: (limit if s.startswith("$") else extents[s]) - 1 for s in symbols(e)}
        corners = [int(eval_expr(e, dict.fromkeys(ends, 0))), int(eval_expr(e, ends))]
        if all(0 <= c < extent for c in corners):
            break
        limit //= 2
    return limit


def _scales(func: Func) -> dict[int, float]:
    """Constants of contractions are scaled so that the sums keep the size of the other side's elements."""
    out: dict[int, float] = {}
    args = list(func.body.block.args)
    for anchor in func.anchors():
        if isinstance(anchor, Contraction):
            size = int(np.prod([anchor.domain.int_extent(n) for n in anchor.domain.reduce_names], dtype=np.int64))
            for v in anchor.rhs:
                if v in args:
                    out[args.index(v)] = max(size, 1) ** -0.5  # pyright: ignore[reportArgumentType]
    return out


def _random(t: TensorType, count: int, limit: int | None, scale: float, rng: np.random.Generator) -> Array:
    d = t.dtype
    if d.kind == "bool":
        return rng.integers(0, 2, count).astype(d.numpy)
    if d.is_int and limit is not None:
        return rng.integers(0, limit, count).astype(d.numpy)
    if d.is_int:
        half = 1 << (d.bits - 1) if d.bits <= 8 else 8
        low, high = (0, 2 * half) if d.kind == "uint" else (-half, half)
        return rng.integers(low, high, count).astype(d.numpy)
    fresh = (rng.standard_normal(min(count, REPEAT), np.float32) * np.float32(scale)).astype(d.numpy)
    return np.resize(fresh, count) if count > REPEAT else fresh


def build_trial(case: Case, candidate: Candidate, target: Target) -> Trial:
    """The engine of a candidate; a TccError if it does not compile, and whatever its template raises."""
    kernel = canonical(case.problem)
    kernel.attrs.update(template=candidate.template.name, config=dict(candidate.config))
    emitted = emit(kernel, target)
    keys = [str(i) for i in range(len(case.flat))]
    for p in packings(kernel, target):
        keys[p.operand] = _packed(case, p)
    content, lengths = _content(case, emitted, keys, _compile(emitted, target), candidate, target)
    return Trial(to_bytes(content), {f"x{i}": key for i, key in enumerate(keys)}, lengths)


def _packed(case: Case, p: Packing) -> str:
    """The key of a packed constant, which is made once a problem."""
    key = f"{p.operand}|{p.domain.text()}|{p.map.text()}|{p.dtype}"
    if key not in case.packed:
        case.packed[key] = pack_values(case.operands[p.operand], p.domain, p.map, p.dtype)
    return key


def _compile(emitted: Emitted, target: Target) -> bytes:
    if target.is_cuda:
        return compile_kernels([("trial", emitted)], target)["trial"][1]
    from tcc.codegen.llvm.compile import CompileError, compile_many

    (built,) = compile_many([("trial", emitted.source)], llvm_target(target), timeout=COMPILE_SECONDS)
    if isinstance(built, CompileError):
        raise built
    return built.content


def _content(
    case: Case, emitted: Emitted, keys: Sequence[str], binary: bytes, candidate: Candidate, target: Target
) -> tuple[EngineContent, dict[str, int]]:
    sizes = [case.array(k)[0].nbytes for k in keys]
    buffers = [_bytes("input", i, n) for i, n in enumerate(sizes)]
    ins = [{"name": f"x{i}", "dtype": "u8", "shape": [n], "buffer": i} for i, n in enumerate(sizes)]
    results = [span(t) * t.dtype.bytes for t in case.func.result_types]
    outs = [
        {"name": f"y{i}", "dtype": "u8", "shape": [n], "buffer": len(buffers) + i} for i, n in enumerate(results)
    ]  # fmt: skip
    buffers += [_bytes("output", i, n) for i, n in enumerate(results)]
    operands = list(range(len(buffers)))
    body: list[Json] = []
    arena = 0
    for w in emitted.workspaces:
        size = int(eval_expr(w.bytes, case.extents))
        operands.append(len(buffers))
        buffers.append({"space": "arena", "offset": arena, "bytes": size, "dtype": "u8", "shape": [size]})
        if w.zeroed:
            body.append({"op": "memset", "dst": {"buffer": operands[-1]}, "bytes": size, "value": 0})
        arena += -(-size // 256) * 256
    symbol_rows: list[Json] = []
    lengths: dict[str, int] = {}
    entries: list[str] = []
    for i, launch in enumerate(launch.bound(case.extents) for launch in emitted.launches):
        row = launch_row(f"k{i}", launch, operands, target, ())
        entries.append(launch.entry if target.is_cuda else _plain_name(launch, i))
        if not target.is_cuda and not row.get("serial"):
            lengths[f"tasks{i}"] = int(eval_expr(launch.tasks, {}))
            row["tasks"] = f"t{i}"
            symbol_rows.append({"name": f"t{i}", "input": len(ins), "axis": 0, "min": 0, "max": None, "divisor": 1})
            ins.append({"name": f"tasks{i}", "dtype": "u8", "shape": [f"t{i}"], "buffer": len(buffers)})
            buffers.append(_bytes("input", len(ins) - 1, f"t{i}"))
        body.append(row)
    for launch, plain in sorted(zip(emitted.launches, entries, strict=True), key=lambda e: -len(e[0].entry)):
        binary = binary.replace(launch.entry.encode(), plain.encode())
    extension = ("cu", "cubin") if target.is_cuda else ("ll", "o")
    paths = {"source": f"kernels/k.{extension[0]}", "binary": f"kernels/k.{extension[1]}"}
    facts = {"template": candidate.template.name, "config": candidate.config, "problem": "", "loc": []}
    kernels = {f"k{i}": {"files": paths, "entry": entry, **facts} for i, entry in enumerate(entries)}
    for row in kernels.values():
        if "arch" in emitted.options:
            row["arch"] = emitted.options["arch"]
    content = EngineContent(
        model="trial", target=dict(engine_target(target)), inputs=ins, outputs=outs, buffers=buffers,
        schedule=[{"op": "segment", "name": "segment_0", "body": body}], symbols=symbol_rows,
        arena={"bytes": arena, "align": 256}, kernels=kernels,
        files={paths["source"]: b"", paths["binary"]: binary},
    )  # fmt: skip
    if not target.is_cuda:
        _native(content, target)
    return content, lengths


def _bytes(space: str, position: int, size: Any) -> Json:
    return {"space": space, "position": position, "bytes": size, "dtype": "u8", "shape": [size]}


def _plain_name(launch: Launch, index: int) -> str:
    """A name for an entry that is the same for all candidates and as long as the entry's own, which it replaces in the
    object's table of names: so the source, and what is cached under it, stays what the model's engine will hold."""
    plain = f"trial{index}_".ljust(len(launch.entry), "0")
    if len(plain) != len(launch.entry):
        raise FailureError(f"the entry {launch.entry} has too short a name")
    return plain


def _native(content: EngineContent, target: Target) -> None:
    """The native object of the schedule; the text has no sizes in it, so most trials find it compiled."""
    from tcc.codegen.llvm.compile import compile_all
    from tcc.codegen.llvm.segment import EngineTables, native_module

    tables = EngineTables(content.buffers, content.kernels, content.symbols, len(content.inputs), len(content.outputs))
    cpu = llvm_target(target)
    text = native_module(tables, content.schedule, cpu.triple)
    if text not in _natives:
        _natives[text] = compile_all([("the segment", text)], cpu)[0].content
    content.files = {**content.files, "kernels/native.ll": b"", "kernels/native.o": _natives[text]}
    content.native = {"source": "kernels/native.ll", "binary": "kernels/native.o"}


_natives: dict[str, bytes] = {}
