# SPDX-License-Identifier: Apache-2.0
"""What the tensor-core templates need of a contraction: how each operand's tiles are copied, and the code for it.

A copy's address is a sum of a part of the operand's own coordinates and a part of k (a convolution's, too), with guards
that are sums alike; each thread computes each part once per copy or per tile. Where that does not hold, or the operand
is computed, elements go through registers, read one point at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcc.codegen.cuda.emit import Access, c_index, codec, register
from tcc.codegen.cuda.emit.index import fits32
from tcc.codegen.cuda.emit.scalar import used_arguments, yielded
from tcc.codegen.cuda.emit.unit import function, loop
from tcc.codegen.cuda.templates.contraction import Side, View
from tcc.codegen.template import Packing
from tcc.ir.arith import Cast
from tcc.ir.attributes import Domain, IndexMap
from tcc.ir.core import Region
from tcc.ir.expr import Dim, Sym, floordiv, split, symbols
from tcc.ir.kernel import Func
from tcc.ir.targets import Target
from tcc.ir.types import BF16, F16, F32, DType, TensorType

COPY_ASYNC, COPY_RAW, COPY_READ = 0, 1, 2
MODES = ("cp.async", "through registers", "computed")
KINDS = {F16: 0, BF16: 1, F32: 2}


@dataclass(frozen=True)
class Feed:
    """How one operand's tiles are filled: the struct `Side` of mma_tile.cuh. `depth`: its extent along k, a packed
    operand's padding included."""

    side: Side
    mode: int
    width: int
    depth: int
    constant: bool
    access: Access
    packing: Packing | None


def _plain(region: Region) -> bool:
    """Whether the region yields its only argument, or that as f32."""
    ops = list(region.block.ops)
    if len(region.block.args) != 1 or len(ops) > 2:
        return False
    value = ops[-1].operands[0]
    if len(ops) == 2:
        return isinstance(ops[0], Cast) and value is ops[0].results[0] and yielded(region) == [F32]
    return value is region.block.args[0]


def element_of(region: Region, access: Access) -> DType:
    """The element type that the region's values have exactly."""
    return access.dtype if _plain(region) else yielded(region)[0]


def _parts(e: Dim) -> tuple[Dim, Dim] | None:
    """e as (a part of fk, a part of everything else); None where it is no such sum."""
    deep, own = split(e, ["fk"])
    return (deep, own) if symbols(deep) <= {"fk"} else None


def separable(access: Access) -> bool:
    """Whether offset and guards are sums of a part of k and one of the other coordinates, and misses give zeros."""
    if access.indirect or (access.guards and access.fill != 0):
        return False
    for e in (access.offset, *(g.expr for g in access.guards)):
        if _parts(e) is None:
            return False
    return all(fits32(g.expr, access.ranges) for g in access.guards)


class MmaView(View):
    """A contraction for tensor cores."""

    def __init__(self, problem: Func, target: Target, entry: str = "unnamed") -> None:
        super().__init__(problem, target, entry)
        self.problem = problem
        self.target = target
        self.left = self._feed(self.a)
        self.right = self._feed(self.b)

    @property
    def element(self) -> DType:
        """The element type of the first operand's values."""
        return element_of(self.a.region, self.unit.operand(self.a.operands[0]))

    @property
    def vector(self) -> int:
        """Elements of the result that a thread stores at once."""
        return self.store_width()

    def _feed(self, side: Side) -> Feed:
        access = self.unit.operand(side.operands[0])
        size = access.dtype.bytes
        plain = len(side.operands) == 1 and _plain(side.region)
        packing = self._packing(side) if plain else None
        if packing is not None:
            wide = 16 // size
            names = packing.domain.parallel_names
            map_ = IndexMap(tuple(Sym(n) for n in names))
            self.unit.replace_operand(side.operands[0], TensorType(packing.shape, packing.dtype), map_)
            access = self.unit.operand(side.operands[0])
            side = Side(side.region, side.operands, side.dim, wide, True)
            depth = packing.domain.int_extent("fk")
            mode = COPY_ASYNC if "cp_async" in self.target.features else COPY_RAW
            return Feed(side, mode, wide, depth, access.constant, access, packing)
        if not plain or not separable(access):
            return Feed(side, COPY_READ, side.width, self.k, False, access, None)
        asynchronous = "cp_async" in self.target.features and side.width * size >= 4
        mode = COPY_ASYNC if asynchronous else COPY_RAW
        return Feed(side, mode, side.width, self.k, access.constant, access, None)

    def _packing(self, side: Side) -> Packing | None:
        """[batch,] own dim, k padded to 16 bytes: for a constant whose own layout has no such copies."""
        anchor, index = self.anchor, side.operands[0]
        value = anchor.operands[index]
        access = self.unit.operand(index)
        source = anchor.maps[index]
        size = access.dtype.bytes
        if not access.constant or value.use_count != 1 or source.fill is not None or source.zero or access.indirect:
            return None
        if side.width * size >= 16 and (side.along_k or size == 2):
            return None
        wide = 16 // size
        depth = -(-self.k // wide) * wide
        dims = [(d, self.unit.extents[d]) for d in ("fb", side.dim) if d == side.dim or access.uses(d)]
        placed = source.substitute(self.unit.env, self.unit.ranges)
        # Past the end every index but k's own might wrap around, so that is said apart.
        zero = (floordiv(Sym("fk"), self.k),) if depth > self.k else ()
        buffer = access.buffer
        return Packing(
            buffer,
            Domain((*dims, ("fk", depth))),
            IndexMap(placed.results, 0.0 if depth > self.k else None, zero),
            access.dtype,
        )

    @property
    def packings(self) -> list[Packing]:
        return [f.packing for f in (self.left, self.right) if f.packing is not None]

    # Generated code.

    def define_sides(self) -> None:
        """`SideA`, `SideB`."""
        for name, feed in (("A", self.left), ("B", self.right)):
            self._define_side(name, feed)

    def _define_side(self, name: str, feed: Feed) -> None:
        unit, side = self.unit, feed.side
        lines = [
            f"using Element = {codec(self.element)};",
            f"static constexpr bool along_k = {str(side.along_k).lower()}, constant = {str(feed.constant).lower()};",
            f"static constexpr int V = {feed.width}, mode = {feed.mode};",
            f"static constexpr int extent = {unit.extents[side.dim]}, depth = {feed.depth};",
        ]
        if feed.mode == COPY_READ:
            vector = ("fk" if side.along_k else side.dim, feed.width) if feed.width > 1 else None
            reader = f"tcc_read_{name.lower()}"
            unit.reader(reader, side.region, side.operands, ("fb", side.dim, "fk"), self.acc, vector)
            lines += [
                "static constexpr bool linear = false;",
                "struct Own {};",
                "static TCC_FN void read(const Args& args, int b, int own, int k, float (&out)[V]) "
                f"{{ {reader}(args, b, own, k, out); }}",
            ]
        else:
            lines += self._address(feed)
        body = "\n".join(f"  {line}" for line in lines)
        unit.add(f"struct Side{name} {{\n{body}\n}};\n")

    def _address(self, feed: Feed) -> list[str]:
        access = feed.access
        ranges = {**access.ranges, "fk": (0, feed.depth - 1)}
        env = {"fb": "b", feed.side.dim: "own", "fk": "k"}
        parts = _parts(access.offset)
        assert parts is not None
        wide = "int" if fits32(access.offset, ranges) and fits32(parts[0], ranges) else "long long"
        own = [f"o.at = {c_index(parts[1], env, ranges)};"]
        deep = [f"d.at = {c_index(parts[0], env, ranges)};"]
        checks: list[str] = []
        for i, g in enumerate(access.guards):
            sides = _parts(g.expr)
            assert sides is not None
            own.append(f"o.g{i} = {c_index(sides[1], env, ranges)};")
            deep.append(f"d.g{i} = {c_index(sides[0], env, ranges)};")
            text = f"o.g{i} + d.g{i}"
            if g.below and g.above:
                checks.append(f"static_cast<unsigned>({text}) < {g.extent}u")
            else:
                checks.append(f"{text} >= 0" if g.below else f"{text} < {g.extent}")
        guards = "".join(f" int g{i};" for i in range(len(checks)))
        stride = None if checks else access.stride(feed.side.dim)
        return [
            f"static constexpr bool linear = {str(stride is not None).lower()};",
            f"static constexpr {wide} stride = {stride or 0};",
            f"struct Own {{ {wide} at;{guards} }};",
            f"struct Deep {{ {wide} at;{guards} }};",
            f"static TCC_FN auto base(const Args& args) {{ return args.{access.pointer}; }}",
            f"static TCC_FN void own(int b, int own, Own& o) {{ {' '.join(own)} }}",
            f"static TCC_FN void deep(int k, Deep& d) {{ {' '.join(deep)} }}",
            "static TCC_FN bool valid(const Own& o, const Deep& d) "
            f"{{ return {' && '.join(checks) if checks else 'true'}; }}",
        ]

    def define_finish(self, width: int) -> int:
        """`Extra`, `tcc_extra` and `tcc_epilogue` for `width` consecutive fn; how many registers an Extra takes."""
        unit, region = self.unit, self.anchor.epilogue
        vector = ("fn", width) if width > 1 else None
        dims = ("fb", "fm", "fn")
        env = {d: f"x_{d}" for d in dims}
        used = used_arguments(region)[1:]
        wanted = [i for i, u in zip(self.extra, used, strict=True) if u]
        lines, names = unit.loads(wanted, env, vector)
        members: list[str] = []
        saves: list[str] = []
        registers = 0
        for i in wanted:
            kind = register(unit.operand(i).dtype)
            name = names[i].removesuffix("[j]")
            if names[i].endswith("[j]"):
                members.append(f"{kind} {name}[{width}];")
                saves.append(f'_Pragma("unroll") for (int j = 0; j < {width}; ++j) e.{name}[j] = {name}[j];')
                registers += width
            else:
                members.append(f"{kind} {name};")
                saves.append(f"e.{name} = {name};")
                registers += 1
        unit.add("struct Extra {\n" + "".join(f"  {m}\n" for m in members) + "};\n")
        at = unit.parameters(dims)
        unit.add(function("tcc_extra", f"const Args& args, {at}, Extra& e", [*lines, *saves]))
        inside: Mapping[str, str] = {**env, "fn": "(x_fn + j)"} if width > 1 else env
        args = [f"acc[{'j' if width > 1 else '0'}]", *(f"e.{names[i]}" if i in names else "0" for i in self.extra)]
        inner, values, _ = unit.apply(region, args, inside, stored=True)
        before, stored, after = unit.stores(values, env, vector)
        params = f"const Args& args, {at}, const Extra& e, const float (&acc)[{width}]"
        unit.add(function("tcc_epilogue", params, [*before, *loop(width, [*inner, *stored]), *after]))
        return registers


def refusal(problem: Func, target: Target, view: MmaView) -> str | None:
    """Why tensor cores do not do this contraction, or None."""
    anchor = view.anchor
    if anchor.acc != F32:
        return f"it accumulates in {anchor.acc}, and tensor cores in f32"
    kinds: list[DType] = []
    for side in (view.a, view.b):
        access = view.unit.operand(side.operands[0])
        kinds.append(element_of(side.region, access) if len(side.operands) == 1 else yielded(side.region)[0])
    return _unfit(kinds, anchor.allow, target)


def _unfit(kinds: Sequence[DType], allow: Sequence[str], target: Target) -> str | None:
    a, b = kinds
    if a != b:
        return f"its factors are {a} and {b}; tensor cores take two of one type"
    if a == F32:
        if "tf32" not in allow:
            return "its factors are f32, and tf32 is not allowed"
        return None if "mma_tf32" in target.features else f"{target.name} has no tf32 tensor cores"
    if a == BF16:
        return None if "mma_bf16" in target.features else f"{target.name} has no bf16 tensor cores"
    return None if a == F16 else f"its factors are {a}; tensor cores take f16, bf16 and tf32 here"
