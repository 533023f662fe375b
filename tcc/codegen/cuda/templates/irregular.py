# SPDX-License-Identifier: Apache-2.0
"""The sources of scans, top-k and scatters: what the templates of each and `cuda.naive` share."""

from __future__ import annotations

from tcc.codegen.cuda.emit import Unit, codec, register
from tcc.codegen.cuda.emit.access import Access, build_access
from tcc.codegen.cuda.emit.combine import identity, step
from tcc.codegen.cuda.emit.index import c_index
from tcc.codegen.cuda.emit.unit import flatten, function
from tcc.codegen.cuda.templates.common import ceil_div
from tcc.codegen.template import Emitted
from tcc.ir.expr import Box, Dim, ceildiv, mul, product
from tcc.ir.kernel import Func, Scan, Scatter, TopK
from tcc.ir.scalar import element
from tcc.ir.targets import Target
from tcc.ir.types import I64, U32, U64, TensorType

SHARED = 32 << 10
"""Bytes that a block's sorted elements may take in shared memory; others lie in a workspace."""

COMBINE = {"add": "sum", "mul": "prod", "max": "max", "min": "min"}


def emit_scan(problem: Func, target: Target, entry: str, threads: int, block: bool, items: int) -> Emitted:
    """A scan by threads or by blocks (`block`), `items` consecutive places a thread."""
    anchor = problem.anchor
    assert isinstance(anchor, Scan)
    (dim,) = anchor.domain.reduce_names
    unit = Unit(problem, target, entry, {"fp": anchor.domain.parallel_names})
    acc = anchor.acc
    value = register(acc)
    unit.reader("tcc_read_each", anchor.body, range(len(anchor.ins)), ("fp", dim), [acc])
    unit.writer("tcc_write_each", anchor.epilogue, [acc], range(len(anchor.ins), len(anchor.operands)), ("fp", dim))
    unit.add(f"TCC_FN {value} tcc_identity() {{ return {identity(anchor.combine, acc)}; }}\n")
    combined = step(anchor.combine, "a", "b", acc)
    unit.add(f"TCC_FN {value} tcc_combine(const {value} a, const {value} b) {{ return {combined}; }}\n")
    rows = unit.sizes["fp"]
    unit.define(
        THREADS=threads, ITEMS=items, REVERSE=anchor.reverse, EXCLUSIVE=anchor.exclusive, Acc=codec(acc),
        RowCoordinate=unit.coordinate_type("fp"),
    )  # fmt: skip
    unit.macro(TCC_BLOCK=int(block), PLACES=unit.size(dim), ROWS=unit.size("fp"))
    grid = rows if block else ceildiv(rows, threads)
    return unit.emitted(
        unit.source("scan.cuh"), [unit.launch((grid, 1, 1), threads)], grid=grid, block=threads,
        row="a block" if block else "a thread",
    )  # fmt: skip


def key_bytes(anchor: TopK) -> int:
    """The bytes that a key is compared in."""
    return 8 if element(anchor.body.block.terminator.operands[0]).bits == 64 else 4


def sorted_size(anchor: TopK, mode: int) -> int:
    """How many elements are sorted: a power of two."""
    count = anchor.domain.int_extent("r" if mode == 2 else "s")
    return 1 << max(count - 1, 0).bit_length()


def spills(anchor: TopK, mode: int) -> bool:
    """Whether the sorted elements of a row take more than a block's shared memory."""
    return sorted_size(anchor, mode) * (8 if key_bytes(anchor) == 4 else 16) > SHARED


def emit_topk(problem: Func, target: Target, entry: str, threads: int, mode: int) -> Emitted:
    """A top-k: `mode` 0 a thread a row, 1 a sort, 2 a selection and a sort by a block a row."""
    anchor = problem.anchor
    assert isinstance(anchor, TopK)
    unit = Unit(problem, target, entry, {"fp": anchor.domain.parallel_names})
    key = element(anchor.body.block.terminator.operands[0])
    unit.reader("tcc_key_each", anchor.body, range(len(anchor.ins)), ("fp", "s"), [key])
    unit.writer("tcc_rank_each", anchor.epilogue, [key, I64], [], ("fp", "r"))
    rows = unit.sizes["fp"]
    unit.define(
        THREADS=threads, LARGEST=anchor.largest, KEY_BYTES=key_bytes(anchor), Key=codec(key),
        RowCoordinate=unit.coordinate_type("fp"),
    )  # fmt: skip
    spill = mode > 0 and spills(anchor, mode)
    unit.macro(TCC_MODE=mode, TCC_SPILL=int(spill), PLACES=unit.size("s"), RANKS=unit.size("r"), ROWS=unit.size("fp"))
    if mode:
        size = sorted_size(anchor, mode)
        unit.define(PLACE_BYTES=ceil_div(max(unit.extents["s"] - 1, 0).bit_length(), 8), SORTED=size)
        if spill:
            unit.workspace(U64, unit.extents["fp"] * size * (1 if key_bytes(anchor) == 4 else 2))
    grid = ceildiv(rows, threads) if mode == 0 else rows
    grid = 0 if unit.sizes["r"] == 0 else grid
    return unit.emitted(
        unit.source("topk.cuh", headers=["order.cuh"]), [unit.launch((grid, 1, 1), threads, writes_work=spill)],
        grid=grid, block=threads, row=("a thread", "a sort", "a selection")[mode],
    )  # fmt: skip


class ScatterUnit(Unit):
    """A unit over lines `fl`, steps `fs`, and the flat elements `fo` of the frame."""

    def __init__(self, problem: Func, target: Target, entry: str) -> None:
        anchor = problem.anchor
        assert isinstance(anchor, Scatter)
        self.scatter = anchor
        domain = anchor.domain
        super().__init__(problem, target, entry, {"fl": domain.parallel_names, "fs": domain.reduce_names})
        frame = anchor.frame
        sizes = [(n, frame.extent(n)) for n in frame.names]
        self.frame_env: dict[str, Dim] = flatten(sizes, "fo")
        self.elements = self.sizes["fo"] = product(e for _, e in sizes)
        if isinstance(self.elements, int):
            self.extents["fo"] = self.elements
        if problem.symbols:
            self.ranges = Box(self.sizes)
        else:
            self.ranges["fo"] = (0, max(self.extents["fo"] - 1, 0))

    def frame_access(self, result: bool) -> Access:
        """x, or the result, at an element of the frame."""
        from tcc.ir.kernel.build import identity_map

        anchor = self.scatter
        mine = self.result(0) if result else None
        value = anchor.outs[0] if result else anchor.x
        buffer = next((i for i, a in enumerate(self.problem.body.block.args) if a is value), -1)
        access = (identity_map(anchor.frame) if result else anchor.maps[0]).substitute(self.frame_env, self.ranges)
        type = value.type
        assert isinstance(type, TensorType)
        if mine is not None:
            return build_access(mine.pointer, mine.buffer, type, access, self.ranges)
        return build_access(f"p{buffer}", buffer, type, access, self.ranges, self.problem.is_const(buffer))

    def generate(self) -> None:
        """tcc_copy, tcc_place and tcc_update."""
        anchor = self.scatter
        source, target = self.frame_access(False), self.frame_access(True)
        env = {"fo": "x_fo"}
        c = codec(target.dtype)
        params = f"const Args& args, {self.parameters(('fo',))}"
        self.add(function("tcc_copy", params, [f"tcc::write<{c}>({target.address(env)}, {source.read(env)});"]))
        env = {"fl": "x_fl", "fs": "x_fs"}
        params = f"const Args& args, {self.parameters(('fl', 'fs'))}"
        out = self.result(0)
        lines, names = self.loads(out.indirect, env)
        inner = {**env, **{f"${i}": names[i] for i in out.indirect}}
        body = "\n  ".join([*lines, f"return {c_index(out.offset, inner, self.ranges)};"])
        self.add(f"TCC_FN long long tcc_place({params}) {{\n  {body}\n}}\n")
        operands = range(1, len(anchor.operands))
        lines, names = self.loads(list(operands), env)
        more, (value,), _ = self.apply(
            anchor.body, [names[i] for i in operands], env, stored=anchor.reduction == "none"
        )
        lines = [
            *lines,
            *more,
            f"{c}::mem* const at = {out.address({**env, **{f'${i}': names[i] for i in operands}})};",
        ]
        if anchor.reduction != "none":
            value = step(COMBINE[anchor.reduction], f"(tcc::read<{c}, false>(at))", f"({value})", out.dtype)
        self.add(function("tcc_update", params, [*lines, f"tcc::write<{c}>(at, {value});"]))


def plain_copy(problem: Func) -> bool:
    """Whether x lies in memory as the result does, so that bytes may be copied."""
    anchor = problem.anchor
    assert isinstance(anchor, Scatter)
    source, target = anchor.x.type, anchor.outs[0].type
    assert isinstance(source, TensorType) and isinstance(target, TensorType)
    straight = [str(e) for e in anchor.maps[0].results] == list(anchor.frame.names) and not anchor.maps[0].zero
    dense = all(t.element_strides == t.dense_strides() for t in (source, target))
    return not problem.symbols and straight and dense and source.align % 16 == 0 and target.align % 16 == 0


def emit_scatter(problem: Func, target: Target, entry: str, threads: int, winners: bool) -> Emitted:
    """A scatter by lines, or (`winners`) by updates."""
    unit = ScatterUnit(problem, target, entry)
    unit.generate()
    lines, steps = unit.sizes["fl"], unit.sizes["fs"]
    size = unit.result(0).dtype.bytes
    vector = plain_copy(problem)
    unit.define(
        THREADS=threads, ElementCoordinate=unit.coordinate_type("fo"), LineCoordinate=unit.coordinate_type("fl"),
        StepCoordinate=unit.coordinate_type("fs"),
    )  # fmt: skip
    if vector:
        unit.define(BYTES=unit.extents["fo"] * size)
    source = unit.frame_access(False)
    unit.macro(
        TCC_WINNERS=int(winners), TCC_VECTOR_COPY=int(vector), TCC_SOURCE=f"args.{source.pointer}",
        TCC_ENTRY_MARK=f"{entry}_mark", ELEMENTS=unit.size("fo"), LINES=unit.size("fl"), STEPS=unit.size("fs"),
    )  # fmt: skip
    if winners:
        result = unit.result_types[0]
        steps_of = [s for s in result.element_strides if isinstance(s, int)]
        span = 1 + sum((d - 1) * s for d, s in zip(result.static_shape, steps_of, strict=True))
        unit.workspace(U32, max(span, 1), zeroed=True)
    copies = ceildiv(mul(unit.elements, size), 16 * threads) if vector else ceildiv(unit.elements, threads)
    points = mul(lines, steps) if winners else 0 if steps == 0 else lines
    grid = (ceildiv(points, threads), 1, 1)
    launches = [unit.launch((copies, 1, 1), threads)]
    if winners:
        launches.append(unit.launch(grid, threads, entry=f"{entry}_mark", writes_results=False, writes_work=True))
    launches.append(unit.launch(grid, threads, entry=f"{entry}_finish"))
    return unit.emitted(unit.source("scatter.cuh"), launches, grid=(copies, grid[0]), block=threads)
