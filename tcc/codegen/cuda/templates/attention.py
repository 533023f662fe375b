# SPDX-License-Identifier: Apache-2.0
"""`cuda.attention` (FMA, any element type) and `cuda.attention_tensor` (f16 and bf16 on tensor cores): one pass over
the keys with an online softmax, operands read through any maps (fused QKV, heads inside rows, masks)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tcc.codegen.cuda.emit import Unit, codec, register
from tcc.codegen.cuda.emit.scalar import used_arguments
from tcc.codegen.cuda.emit.unit import function, loop
from tcc.codegen.cuda.templates.common import ceil_div, cheapest, clock, free_extent, memory_seconds
from tcc.codegen.template import Columns, Config, Constraint, Emitted, Space, Template, entry_name, template
from tcc.ir.kernel import Attention, Func
from tcc.ir.kernel.build import identity_region
from tcc.ir.targets import Target
from tcc.ir.types import BF16, F16, F32, F64

MOST_DEPTH = 256


class AttentionUnit:
    """A unit over fb (batch dims), m, d, n, k, and the functions both templates generate."""

    def __init__(self, problem: Func, target: Target, entry: str = "unnamed") -> None:
        anchor = problem.anchor
        assert isinstance(anchor, Attention)
        self.anchor = anchor
        self.unit = Unit(problem, target, entry, {"fb": anchor.domain.parallel_names[:-2]})
        e = self.unit.extents
        self.batch, self.m, self.n, self.d, self.dv = e["fb"], e["m"], e["n"], e["k"], e["d"]

    def width(self, operand: int, dim: str, most: int = 16) -> int:
        """The widest vector of an operand along dim."""
        access = self.unit.operand(operand)
        width = max(1, most // access.dtype.bytes)
        while width > 1 and (self.unit.extents[dim] % width or access.pattern(dim, width) != "vector"):
            width //= 2
        return width

    def readers(self, widths: tuple[int, int, int]) -> None:
        """tcc_read_q, tcc_read_k, tcc_read_v."""
        rows, columns = ("m", "n", "n"), ("k", "k", "d")
        for i, (name, width) in enumerate(zip("qkv", widths, strict=True)):
            vector = (columns[i], width) if width > 1 else None
            region = identity_region(self.unit.operand(i).dtype)
            self.unit.reader(f"tcc_read_{name}", region, (i,), ("fb", rows[i], columns[i]), self.anchor.acc, vector)

    def score(self, width: int) -> None:
        """tcc_score(args, b, m, n, s[width]): the score region in place."""
        unit, region, acc = self.unit, self.anchor.score, self.anchor.acc
        env = {d: f"x_{d}" for d in ("fb", "m", "n")}
        vector = ("n", width) if width > 1 else None
        extra = range(3, len(self.anchor.operands))
        used = used_arguments(region)[1:]
        lines, names = unit.loads([i for i, u in zip(extra, used, strict=True) if u], env, vector)
        inside = {**env, "n": "(x_n + j)"} if width > 1 else env
        args = ["s[j]", *(names.get(i, "0") for i in extra)]
        inner, (value,), (kind,) = unit.apply(region, args, inside)
        inner = [*inner, f"s[j] = tcc::cast<{codec(acc)}, {codec(kind)}>({value});"]
        params = f"const Args& args, {unit.parameters(('fb', 'm', 'n'))}, {register(acc)} (&s)[{width}]"
        unit.add(function("tcc_score", params, [*lines, *loop(width, inner)]))

    def epilogue(self, most: int) -> int:
        """tcc_epilogue(args, b, m, d, acc[V]); V ≤ `most`."""
        access = self.unit.result(0)
        width = most
        while width > 1 and (self.dv % width or access.pattern("d", width) != "vector"):
            width //= 2
        vector = ("d", width) if width > 1 else None
        self.unit.writer("tcc_epilogue", self.anchor.epilogue, [self.anchor.acc], (), ("fb", "m", "d"), vector)
        return width

    def bases(self) -> bool:
        """tcc_base_q, tcc_base_k, tcc_base_v and the steps between rows, where all three operands are rows of aligned
        16-byte vectors with a constant step; False where not."""
        unit = self.unit
        names = (("q", "m", "k"), ("k", "n", "k"), ("v", "n", "d"))
        for i, (_, row, column) in enumerate(names):
            access = unit.operand(i)
            aligned = access.dtype.bytes == 2 and self.width(i, column) == 8 and not access.guards
            if not aligned or access.stride(row) is None or access.stride(column) != 1:
                return False
        for i, (name, row, column) in enumerate(names):
            access = unit.operand(i)
            mem = f"{codec(access.dtype)}::mem"
            address = access.address({"fb": "x_fb", row: "0", column: "0"})
            unit.add(
                f"TCC_FN const {mem}* tcc_base_{name}(const Args& args, {unit.parameters(('fb',))}) "
                f"{{\n  return {address};\n}}\n"
            )
            unit.define(**{f"{name.upper()}_ROW": access.stride(row) or 0})
        return True

    def fetchers(self) -> None:
        """tcc_fetch_q, tcc_fetch_k, tcc_fetch_v: 8 elements to shared memory, one by one."""
        unit = self.unit
        for i, (name, row, column) in enumerate((("q", "m", "k"), ("k", "n", "k"), ("v", "n", "d"))):
            access = unit.operand(i)
            c = codec(access.dtype)
            params = f"const Args& args, {unit.parameters(('fb', row, column))}, {c}::mem* to"
            point = {"fb": "x_fb", row: f"x_{row}", column: f"(x_{column} + j)"}
            inside = f"x_{column} + j < {unit.extents[column]}"
            lines = loop(8, [f"to[j] = {c}::store({inside} ? ({access.read(point)}) : 0.0f);"])
            unit.add(function(f"tcc_fetch_{name}", params, lines))


def _indirect(problem: Func) -> bool:
    return any(s.startswith("$") for m in problem.anchor.maps for s in m.symbols)


def _flops(a: AttentionUnit) -> float:
    return 2.0 * a.batch * a.m * a.n * (a.d + a.dv)


def _plain_shared(c: Columns, problem: Func, target: Target) -> Any:
    a = AttentionUnit(problem, target)
    size = a.anchor.acc.bytes
    bq, bk = c["ty"] * c["rows"], c["tx"] * c["keys"]
    dp, vp = ceil_div(a.d, 4) * 4, ceil_div(a.dv, 4) * 4
    return ((bq + bk) * (dp + 4) + bk * vp + bq * (bk + 1)) * size


def _plain_registers(c: Columns, problem: Func, target: Target) -> Any:
    a = AttentionUnit(problem, target)
    groups = ceil_div(ceil_div(a.dv, 4), c["tx"])
    words = c["rows"] * groups * 4 + c["rows"] * c["keys"] + (c["rows"] + c["keys"]) * 4
    return words * (a.anchor.acc.bytes // 4) <= 160


def _plain_oversized(c: Columns, problem: Func, target: Target) -> Any:
    a = AttentionUnit(problem, target)
    return (c["ty"] * c["rows"] < 2 * max(a.m, 8)) & (c["tx"] * c["keys"] < 2 * max(a.n, 16))


@template
class AttentionSimt(Template):
    """A block for ty × rows queries of a head; tx threads share a row of scores."""

    name = "cuda.attention"
    kind = "cuda"
    matches = (Attention,)
    space = Space(tx=[8, 16, 32], ty=[4, 8, 16, 32], rows=[1, 2, 4], keys=[1, 2, 4])
    legal = (
        Constraint("threads", lambda c, p, t: (c["tx"] * c["ty"] >= 64) & (c["tx"] * c["ty"] <= 512),
                   "a block has 64 to 512 threads"),
        Constraint("shared", lambda c, p, t: _plain_shared(c, p, t) <= 48 << 10,
                   "tiles of queries, keys, values and scores fit 48 KiB of shared memory"),
        Constraint("registers", _plain_registers, "scores and output of a thread fit 160 registers"),
        Constraint("oversized", _plain_oversized, "tiles are less than twice the problem"),
    )  # fmt: skip

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem)) is not None:
            return sentence
        a = AttentionUnit(problem, target)
        if a.anchor.acc not in (F32, F64):
            return f"it accumulates in {a.anchor.acc}"
        if max(a.d, a.dv) > MOST_DEPTH:
            return f"a head of more than {MOST_DEPTH} channels"
        if _indirect(problem):
            return "an operand is indirect"
        if not len(self.legal_columns(problem, target)[0]["tx"]):
            return "no tile of the head fits shared memory and registers"
        return "2^30 queries or more" if a.batch * a.m >= 1 << 30 else None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    weights: ClassVar[tuple[float, ...]] = (0.125, 6.15, 0.188, 61.2, 5.0, 132.0, 1.26, 6.76e-06)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # Cycles of a warp: an FMA, four values from shared memory, one value, a tile's vector, a score, a step; how
        # many warps a scheduler needs to issue every cycle; seconds of a block.
        fma, quad, one, fetch, softmax, frame, hide, around = self.weights
        a, c = AttentionUnit(problem, target), configs
        threads = c["tx"] * c["ty"]
        bq, bk = c["ty"] * c["rows"], c["tx"] * c["keys"]
        blocks = a.batch * ceil_div(a.m, bq)
        resident = np.minimum(target.shared_bytes // _plain_shared(c, problem, target), 2048 // threads)
        groups = ceil_div(ceil_div(a.dv, 4), c["tx"])
        held = np.minimum(255, 50 + c["rows"] * groups * 4 + c["rows"] * c["keys"] + 4 * (c["rows"] + c["keys"]))
        resident = np.maximum(1, np.minimum(resident, 65536 // (threads * held)))
        scores = a.d / 4.0 * (quad * (c["rows"] + c["keys"]) + 4.0 * fma * c["rows"] * c["keys"])
        values = bk * (groups * (quad + 4.0 * fma * c["rows"]) + one * c["rows"] * groups)
        issue = scores + values + c["rows"] * c["keys"] * softmax + c["rows"] * (60.0 + 4.0 * groups)
        issue = issue + bk * (a.d + a.dv) / 4.0 / threads * fetch + frame
        together = np.maximum(1, np.minimum(resident, ceil_div(blocks, target.cores)))
        waves = np.maximum(ceil_div(blocks, resident * target.cores), 1)
        step = issue * np.maximum(together * threads / 128.0, hide) / clock(target)
        seconds = waves * (ceil_div(a.n, bk) * step + around)
        return target.launch_seconds + np.maximum(seconds, memory_seconds(problem, target))

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        a, c = AttentionUnit(problem, target, entry_name(problem, self.name, config)), config
        widths = (min(a.width(0, "k"), 4), min(a.width(1, "k"), 4), min(a.width(2, "d"), 4))
        a.readers(widths)
        a.score(1)
        ve = a.epilogue(4)
        a.unit.define(
            TX=c["tx"], TY=c["ty"], RQ=c["rows"], RK=c["keys"], M=a.m, N=a.n, D=a.d, DV=a.dv, VE=ve,
            VQ=widths[0], VK=widths[1], VV=widths[2], Acc=codec(a.anchor.acc),
        )  # fmt: skip
        grid, threads = a.batch * ceil_div(a.m, c["ty"] * c["rows"]), c["tx"] * c["ty"]
        return a.unit.emitted(
            a.unit.source("attention.cuh"), [a.unit.launch((grid, 1, 1), threads)], instruction="FMA", grid=grid,
            block=threads, tile=[c["ty"] * c["rows"], c["tx"] * c["keys"]],
            placement={"query": "shared", "key": "shared", "value": "shared"},
        )  # fmt: skip


def _tensor_shared(c: Columns, problem: Func, target: Target) -> Any:
    a = AttentionUnit(problem, target)
    dk, do = ceil_div(a.d, 16) * 16 + 8, ceil_div(a.dv, 16) * 16 + 8
    tiles = 2 * (c["warps"] * 16 * dk + c["buffers"] * c["keys"] * (dk + do))
    return np.maximum(tiles, (c["key_warps"] - 1) * c["warps"] * ((do - 8) // 2 + 4) * 128)


def _tensor_registers(c: Columns, problem: Func, target: Target) -> Any:
    a = AttentionUnit(problem, target)
    dk, do = ceil_div(a.d, 16) * 16, ceil_div(a.dv, 16) * 16
    own = c["keys"] // c["key_warps"]
    return dk // 4 + do // 2 + own // 2 + own // 4 <= 200


def _tensor_threads(c: Columns, problem: Func, target: Target) -> Any:
    return (c["warps"] * c["key_warps"] <= 8) & (c["keys"] >= 16 * c["key_warps"])


def _tensor_oversized(c: Columns, problem: Func, target: Target) -> Any:
    a = AttentionUnit(problem, target)
    once = ceil_div(a.n, c["keys"]) == 1
    return (c["warps"] * 16 < 2 * max(a.m, 16)) & (c["keys"] < 2 * max(a.n, 16)) & ((c["buffers"] == 1) | ~once)


@template
class AttentionTensor(Template):
    """A warp for 16 queries of a head and a part of the keys, mma.sync for both products."""

    name = "cuda.attention_tensor"
    kind = "cuda"
    matches = (Attention,)
    needs = frozenset(("mma_f16", "ldmatrix"))
    space = Space(warps=[1, 2, 4, 8], key_warps=[1, 2, 4, 8], keys=[16, 32, 64, 128, 256], buffers=[1, 2])
    legal = (
        Constraint("threads", _tensor_threads, "a block has at most 8 warps, with at least 16 keys each"),
        Constraint("shared", lambda c, p, t: _tensor_shared(c, p, t) <= t.shared_bytes, "tiles fit shared memory"),
        Constraint("registers", _tensor_registers, "a warp's fragments fit 200 registers"),
        Constraint("oversized", _tensor_oversized,
                   "tiles are less than twice the problem, and buffered only where there are several"),
    )  # fmt: skip

    def accepts(self, problem: Func, target: Target) -> str | None:
        if (sentence := free_extent(problem)) is not None:
            return sentence
        a = AttentionUnit(problem, target)
        kinds = {a.unit.operand(i).dtype for i in range(3)}
        if kinds != {F16} and kinds != {BF16}:
            return f"its operands are {', '.join(sorted(map(str, kinds)))}, not all f16 or all bf16"
        if kinds == {BF16} and "mma_bf16" not in target.features:
            return f"{target.name} has no bf16 tensor cores"
        if a.anchor.acc != F32:
            return f"it accumulates in {a.anchor.acc}"
        if max(a.d, a.dv) > MOST_DEPTH:
            return f"a head of more than {MOST_DEPTH} channels"
        if _indirect(problem):
            return "an operand is indirect"
        if not len(self.legal_columns(problem, target)[0]["warps"]):
            return "no tile of the head fits shared memory and registers"
        return "2^30 queries or more" if a.batch * a.m >= 1 << 30 else None

    def default(self, problem: Func, target: Target) -> Config | None:
        return cheapest(self, problem, target)

    weights: ClassVar[tuple[float, ...]] = (4.31, 3.35, 0.107, 56.1, 50.7, 0.633, 0.441, 9.77e-07)

    def cost(self, problem: Func, configs: Columns, target: Target) -> np.ndarray[Any, Any]:
        # Cycles of a warp: 1/128 of a product of one key, a pair of scores, rescaling a channel, a tile's vector, a
        # step; how many warps a scheduler needs to issue every cycle; microseconds of an unhidden load; seconds of a
        # block.
        product, score, rescale, fetch, frame, hide, wait, around = self.weights
        a, c = AttentionUnit(problem, target), configs
        bq, own = c["warps"] * 16, c["keys"] // c["key_warps"]
        blocks = a.batch * ceil_div(a.m, bq)
        warps = c["warps"] * c["key_warps"]
        held = np.minimum(255, 60 + a.d // 4 + a.dv // 2 + own * 3 // 4)
        resident = np.minimum(target.shared_bytes // _tensor_shared(c, problem, target), 2048 // (held * warps))
        resident = np.maximum(1, np.minimum(resident, 24))
        steps = ceil_div(a.n, c["keys"])
        step = own * (a.d + a.dv) / 128.0 * product + own * score + a.dv * rescale
        step = step + c["keys"] * (a.d + a.dv) / (256.0 * warps) * fetch + frame
        together = np.maximum(1, np.minimum(resident, ceil_div(blocks, target.cores)))
        cycles = step * np.maximum(together * warps / 4.0, hide)
        merge = np.where(c["key_warps"] > 1, 3e-7 + c["key_warps"] * a.dv * 1e-9, 0.0)
        unhidden = np.where(c["buffers"] > 1, 0.2, 1.0) * wait * 1e-6 / np.sqrt(together)
        waves = np.maximum(1.0, blocks / (resident * target.cores))
        seconds = waves * (steps * (cycles / clock(target) + unhidden) + merge + around)
        return target.launch_seconds + np.maximum(seconds, memory_seconds(problem, target))

    def emit(self, problem: Func, config: Config, target: Target) -> Emitted:
        a, c = AttentionUnit(problem, target, entry_name(problem, self.name, config)), config
        affine = a.bases()
        if not affine:
            a.fetchers()
        a.unit.macro(TCC_AFFINE=int(affine))
        vs = 2 if a.n % 2 == 0 else 1
        a.score(vs)
        ve = a.epilogue(2)
        a.unit.define(
            WARPS_Q=c["warps"], WARPS_K=c["key_warps"], BK=c["keys"], BUFFERS=c["buffers"], M=a.m, N=a.n, D=a.d,
            DV=a.dv, VS=vs, VE=ve, Element=codec(a.unit.operand(0).dtype),
        )  # fmt: skip
        grid, threads = a.batch * ceil_div(a.m, c["warps"] * 16), c["warps"] * c["key_warps"] * 32
        shared = int(_tensor_shared({k: np.array(v) for k, v in c.items()}, problem, target))
        return a.unit.emitted(
            a.unit.source("attention_tensor.cuh", headers=["tensor.cuh"]),
            [a.unit.launch((grid, 1, 1), threads, shared=shared)],
            instruction="mma.sync",
            grid=grid,
            block=threads,
            tile=[c["warps"] * 16, c["keys"]],
            placement={"query": "registers", "key": "shared", "value": "shared"},
        )
