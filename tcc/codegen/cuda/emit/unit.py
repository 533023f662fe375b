# SPDX-License-Identifier: Apache-2.0
"""One CUDA C++ translation unit for one problem: prelude, generated device functions, the text of a `.cuh` template.

A template may iterate over *flat* dims instead of the anchor's own (`flat={"fm": ("n", "oy", "ox")}`): every map is
rewritten over them, so strides and vector widths are those of the flattened iteration. In generated code the
coordinate along dim `d` is named `x_d`; buffers are the members p0.. (operands), r0.. (results), w0.. (workspaces) of
`Args args`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tcc.codegen.cuda.emit.access import Access, build_access
from tcc.codegen.cuda.emit.dtypes import SMALL, codec, literal, register
from tcc.codegen.cuda.emit.index import c_index
from tcc.codegen.cuda.emit.scalar import inline_region, region_indices, used_arguments, yielded
from tcc.codegen.template import BufferParam, Emitted, Launch, ScalarParam, Workspace
from tcc.ir.attributes import IndexMap
from tcc.ir.core import Region
from tcc.ir.expr import Box, Dim, Sym, floordiv, mod, mul, product
from tcc.ir.kernel import Func
from tcc.ir.targets import Target
from tcc.ir.types import DType, ScalarType, TensorType

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
Env = Mapping[str, str]


@cache
def template_text(name: str) -> str:
    """The text of a `.cuh` file of the templates' folder."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def flatten(extents: Sequence[tuple[str, Dim]], name: str) -> dict[str, Dim]:
    """The dims (row-major) as expressions of one dim `name` that runs over all their points."""
    total: Dim = 1
    out: dict[str, Dim] = {}
    points = product(e for _, e in extents)
    ranges = {name: (0, max(points - 1, 0))} if isinstance(points, int) else Box({name: points})
    for dim, extent in reversed(extents):
        unit = isinstance(extent, int) and extent <= 1
        out[dim] = 0 if unit else mod(floordiv(Sym(name), total, ranges), extent, ranges)
        total = total if unit else mul(total, extent)
    return out


class Unit:
    """Builds the source of a kernel of one anchor."""

    def __init__(
        self,
        problem: Func,
        target: Target,
        entry: str,
        flat: Mapping[str, Sequence[str]] | None = None,
        reach: Mapping[str, int] | None = None,
    ) -> None:
        """`reach`: dims along which reads go beyond the extent (to so many points); such reads are guarded."""
        self.problem = problem
        self.target = target
        self.entry = entry
        self.anchor = problem.anchor
        domain = self.anchor.domain
        self.sizes: dict[str, Dim] = {}
        """The extents of the unit's dims."""
        self.env: dict[str, Dim] = {}
        """The anchor's dims as expressions of the unit's."""
        taken: set[str] = set()
        for name, members in (flat or {}).items():
            sizes = [(d, domain.extent(d)) for d in members]
            self.sizes[name] = product(e for _, e in sizes)
            self.env.update(flatten(sizes, name))
            taken.update(members)
        for d in domain.names:
            if d not in taken:
                size = self.sizes[d] = domain.extent(d)
                self.env[d] = 0 if isinstance(size, int) and size <= 1 else Sym(d)
        self.extents = {d: e for d, e in self.sizes.items() if isinstance(e, int)}
        """Those of them that are numbers."""
        self.ranges: dict[str, tuple[int, int]] = {d: (0, max(e - 1, 0)) for d, e in self.extents.items()}
        if problem.symbols:
            self.ranges = Box(self.sizes)
        self.ranges.update({d: (0, e - 1) for d, e in (reach or {}).items()})
        self.pdl = "pdl" in target.features
        self._defines: list[str] = []
        self._functions: list[str] = []
        self._inserted: dict[str, str] = {}
        self.workspaces: list[Workspace] = []
        self._work_types: list[DType] = []
        self._arg_types = list(problem.arg_types)
        self._operands: dict[int, Access] = {}
        self._results: dict[int, Access] = {}

    # Buffers.

    @property
    def arg_types(self) -> list[TensorType]:
        return self._arg_types

    @property
    def result_types(self) -> list[TensorType]:
        return self.problem.result_types

    def operand(self, index: int) -> Access:
        """The access of the anchor's operand `index`, over the unit's dims."""
        if index not in self._operands:
            value = self.anchor.operands[index]
            buffer = next(i for i, a in enumerate(self.problem.body.block.args) if a is value)
            access = self.anchor.maps[index].substitute(self.env, self.ranges)
            type = value.type
            assert isinstance(type, TensorType)
            constant = self.problem.is_const(buffer)
            self._operands[index] = build_access(f"p{buffer}", buffer, type, access, self.ranges, constant)
        return self._operands[index]

    def result(self, index: int) -> Access:
        """The access of the anchor's result `index`."""
        if index not in self._results:
            value = self.anchor.results[index]
            place = next(i for i, v in enumerate(self.problem.body.block.terminator.operands) if v is value)
            access = self.anchor.out_maps[index].substitute(self.env, self.ranges)
            type = value.type
            assert isinstance(type, TensorType)
            buffer = len(self.arg_types) + place
            self._results[index] = build_access(f"r{place}", buffer, type, access, self.ranges)
        return self._results[index]

    @property
    def operands(self) -> list[Access]:
        return [self.operand(i) for i in range(len(self.anchor.operands))]

    @property
    def results(self) -> list[Access]:
        return [self.result(i) for i in range(len(self.anchor.results))]

    def workspace(self, dtype: DType, elements: int, zeroed: bool = False) -> str:
        """Adds a workspace of so many elements; its member of Args."""
        self.workspaces.append(Workspace(elements * dtype.bytes, zeroed))
        self._work_types.append(dtype)
        return f"w{len(self.workspaces) - 1}"

    def reader_reach(self, index: int) -> None:
        """Operand `index` is read beyond the domain's extents (`reach`); it then gives 0, in range or not."""
        access = self.anchor.maps[index]
        if access.fill is None:
            value = self.anchor.operands[index]
            assert isinstance(value.type, TensorType)
            self.replace_operand(index, value.type, IndexMap(access.results, 0, access.zero))

    def replace_operand(self, index: int, type: TensorType, index_map: IndexMap) -> None:
        """Operand `index` arrives in another layout (a `Packing` the template asked for): read it through this map."""
        value = self.anchor.operands[index]
        buffer = next(i for i, a in enumerate(self.problem.body.block.args) if a is value)
        access = index_map.substitute(self.env, self.ranges)
        constant = self.problem.is_const(buffer)
        self._operands[index] = build_access(f"p{buffer}", buffer, type, access, self.ranges, constant)
        self._arg_types[buffer] = type

    # Text.

    def define(self, **values: int | bool | str) -> None:
        """`constexpr` ints and bools, and type aliases (strings)."""
        for name, value in values.items():
            if isinstance(value, bool):
                self._defines.append(f"constexpr bool {name} = {str(value).lower()};")
            elif isinstance(value, int):
                self._defines.append(f"constexpr {'int' if abs(value) < 2**31 else 'long long'} {name} = {value};")
            else:
                self._defines.append(f"using {name} = {value};")

    def macro(self, **values: int | str) -> None:
        """Preprocessor macros, for what templates test with `#if`."""
        self._defines += [f"#define {name} {value}" for name, value in values.items()]

    def add(self, text: str) -> None:
        """Adds a generated device function."""
        self._functions.append(text)

    def insert(self, template: str, text: str) -> None:
        """Puts a generated function where the `.cuh` says `//@generated`: it may call what stands above that line."""
        self._inserted[template] = self._inserted.get(template, "") + text

    def parameters(self, dims: Sequence[str]) -> str:
        """Parameters of a device function for the coordinates along dims."""
        return ", ".join(f"const {self.coordinate_type(d)} x_{d}" for d in dims)

    def coordinate_type(self, dim: str) -> str:
        return "int" if self.extents.get(dim, 2**31) < 2**31 else "long long"

    def size(self, dim: str) -> str:
        """The extent of a dim as a C++ expression, where `args` is visible."""
        return c_index(self.sizes[dim], {}, self.ranges)

    def index_env(self, env: Env) -> dict[str, str]:
        """C++ expressions of the anchor's dims, given those of the unit's, and of the kernel's symbols."""
        dims = {d: c_index(e, env, self.ranges) for d, e in self.env.items()}
        return dims | {s: f"args.{s}" for s in self.problem.symbols}

    # Generated code.

    def loads(
        self, wanted: Sequence[int], env: Env, vector: tuple[str, int] | None = None, prefix: str = "v"
    ) -> tuple[list[str], dict[int, str]]:
        """Statements that read the operands `wanted` at a point, and the name of each one's value.

        With `vector` = (dim, V) the point is the first of V along dim; the names then hold `[j]` where the value
        differs between them.
        """
        lines: list[str] = []
        names: dict[int, str] = {}
        for i in wanted:
            self._load(i, dict(env), vector, prefix, lines, names)
        return lines, names

    def _load(
        self, i: int, env: dict[str, str], vector: tuple[str, int] | None, prefix: str, lines: list[str],
        names: dict[int, str],
    ) -> None:  # fmt: skip
        if i in names:
            return
        access = self.operand(i)
        for j in access.indirect:
            self._load(j, env, vector, prefix, lines, names)
            env[f"${j}"] = names[j]
        name, kind = f"{prefix}{i}", register(access.dtype)
        pattern = "broadcast"
        if vector is not None:
            pattern = access.pattern(*vector)
            if any("[j]" in names[j] for j in access.indirect):
                pattern = "scalar"
        if pattern == "broadcast":
            lines.append(f"const {kind} {name} = {access.read(env)};")
            names[i] = name
            return
        assert vector is not None
        dim, width = vector
        lines.append(f"{kind} {name}[{width}];")
        names[i] = f"{name}[j]"
        if pattern == "vector":
            text = (
                f"tcc::read_vector<{codec(access.dtype)}, {width}, {str(access.constant).lower()}>"
                f"({access.address(env)}, {name});"
            )
            condition = access.condition(env)
            if condition is not None:
                assert access.fill is not None
                fill = literal(access.fill, access.dtype)
                text = (
                    f"if ({condition}) {text} else {{\n"
                    f'  _Pragma("unroll") for (int j = 0; j < {width}; ++j) {name}[j] = {fill};\n}}'
                )
            lines.append(text)
            return
        lines.append('_Pragma("unroll")')
        point = {**env, dim: f"({env[dim]} + j)"}
        lines.append(f"for (int j = 0; j < {width}; ++j) {name}[j] = {access.read(point)};")

    def apply(
        self, region: Region, args: Sequence[str], env: Env, prefix: str = "t", stored: bool = False
    ) -> tuple[list[str], list[str], list[DType]]:
        """The region at a point: (statements, C++ expressions of its yields, their types). `stored`: see
        `inline_region`."""
        indices = self.index_env(env) if region_indices(region) else {}
        lines, values = inline_region(region, args, indices, prefix, stored)
        return lines, values, yielded(region)

    def reader(
        self,
        name: str,
        region: Region,
        operands: Sequence[int],
        dims: Sequence[str],
        acc: Sequence[DType] | DType,
        vector: tuple[str, int] | None = None,
    ) -> None:
        """Adds `void name(const Args& args, coordinates along dims, Acc (&out0)[V], …)`: the operands' scalars through
        the region, cast to `acc` (one type per yield), at V points along the vector dim (V = 1 without)."""
        width = 1 if vector is None else vector[1]
        accs = [acc] if isinstance(acc, DType) else list(acc)
        outs = ", ".join(f"{register(a)} (&out{i})[{width}]" for i, a in enumerate(accs))
        env = {d: f"x_{d}" for d in dims}
        live = [i for i, used in zip(operands, used_arguments(region), strict=False) if used]
        lines, names = self.loads(live, env, vector)
        body = self._body(region, [names.get(i, "0") for i in operands], env, vector)
        inner, values, types = body
        inner = [
            *inner,
            *(
                f"out{i}[j] = tcc::cast<{codec(a)}, {codec(t)}>({v});"
                for i, (a, t, v) in enumerate(zip(accs, types, values, strict=True))
            ),
        ]
        params = ", ".join(filter(None, ["const Args& args", self.parameters(dims), outs]))
        self.add(function(name, params, [*lines, *loop(width, inner)]))

    def _body(
        self, region: Region, args: Sequence[str], env: Env, vector: tuple[str, int] | None, stored: bool = False
    ) -> tuple[list[str], list[str], list[DType]]:
        inside = dict(env)
        if vector is not None:
            inside[vector[0]] = f"({env[vector[0]]} + j)"
        return self.apply(region, args, inside, stored=stored)

    def writer(
        self,
        name: str,
        region: Region,
        acc: Sequence[DType],
        operands: Sequence[int],
        dims: Sequence[str],
        vector: tuple[str, int] | None = None,
    ) -> None:
        """Adds `void name(const Args& args, coordinates along dims, const Acc (&acc0)[V], …)`: the region on the
        accumulated values and the operands' scalars, its yields stored through the out_maps."""
        width = 1 if vector is None else vector[1]
        accs = [f"const {register(a)} (&acc{i})[{width}]" for i, a in enumerate(acc)]
        env = {d: f"x_{d}" for d in dims}
        used = used_arguments(region)[len(acc) :]
        lines, names = self.loads([i for i, u in zip(operands, used, strict=True) if u], env, vector)
        args = [f"acc{i}[j]" for i in range(len(acc))] + [names.get(i, "0") for i in operands]
        inner, values, _ = self._body(region, args, env, vector, stored=True)
        before, stored, after = self.stores(values, env, vector)
        params = ", ".join(filter(None, ["const Args& args", self.parameters(dims), *accs]))
        self.add(function(name, params, [*lines, *before, *loop(width, [*inner, *stored]), *after]))

    def stores(
        self, values: Sequence[str], env: Env, vector: tuple[str, int] | None = None, prefix: str = "out"
    ) -> tuple[list[str], list[str], list[str]]:
        """(statements before the loop over j, inside it, after it) that store one value per result."""
        width = 1 if vector is None else vector[1]
        before: list[str] = []
        inside: list[str] = []
        after: list[str] = []
        for k, value in enumerate(values):
            access = self.result(k)
            c = codec(access.dtype)
            if vector is not None and access.pattern(*vector) == "vector":
                before.append(f"{register(access.dtype)} {prefix}{k}[{width}];")
                inside.append(f"{prefix}{k}[j] = {value};")
                after.append(f"tcc::write_vector<{c}, {width}>({access.address(env)}, {prefix}{k});")
            else:
                point = dict(env) if vector is None else {**env, vector[0]: f"({env[vector[0]]} + j)"}
                inside.append(f"tcc::write<{c}>({access.address(point)}, {value});")
        return before, inside, after

    # The whole.

    def source(self, *templates: str, headers: Sequence[str] = ()) -> str:
        """The translation unit: prelude (with `headers`, which generated code may call), generated parts, then the
        named `.cuh` files."""
        used = {t.dtype.name for t in (*self.arg_types, *self.result_types)} | {d.name for d in self._work_types}
        for region in self.anchor.regions:
            for op in region.block.ops:
                used |= {v.type.dtype.name for v in (*op.results, *op.operands) if isinstance(v.type, ScalarType)}
        head = [f"// {self.entry}: {self.anchor.name} over {self.anchor.domain.text()}", "#pragma nv_diag_suppress 177"]
        for name, header in (("f16", "cuda_fp16.h"), ("bf16", "cuda_bf16.h")):
            if name in used:
                head += [f"#include <{header}>", f"#define TCC_USE_{name.upper()}"]
        if self.pdl:
            head.append("#define TCC_PDL")
        texts = ["types.cuh", *(["small_float.cuh"] if used & SMALL else []), "scalar.cuh", "memory.cuh", *headers]
        parts = ["\n".join(head), *(template_text(t) for t in texts), self._args(), "\n".join(self._defines)]
        parts += [*self._functions, *(self._template(t) for t in templates)]
        return "\n".join(p.rstrip("\n") + "\n" for p in parts if p)

    def _template(self, name: str) -> str:
        return template_text(name).replace("//@generated\n", self._inserted.get(name, ""))

    def _args(self) -> str:
        members: list[tuple[str, str]] = []
        members += [(f"const {codec(t.dtype)}::mem*", f"p{i}") for i, t in enumerate(self.arg_types)]
        members += [(f"{codec(t.dtype)}::mem*", f"r{i}") for i, t in enumerate(self.result_types)]
        members += [(f"{codec(d)}::mem*", f"w{i}") for i, d in enumerate(self._work_types)]
        members += [("long long", s) for s in self.problem.symbols]
        lines = ["struct Args {", *(f"  {t} {n};" for t, n in members), "};"]
        lines.append(f"#define TCC_ENTRY {self.entry}\n#define TCC_ENTRY_FINISH {self.entry}_finish")
        lines.append(f"#define TCC_PARAMS {', '.join(f'{t} arg_{n}' for t, n in members)}")
        lines.append(f"#define TCC_ARGS const Args args{{{', '.join(f'arg_{n}' for _, n in members)}}}")
        return "\n".join(lines)

    def launch(
        self,
        grid: tuple[Dim, Dim, Dim],
        block: int | tuple[int, int, int],
        shared: int = 0,
        entry: str = "",
        writes_results: bool = True,
        writes_work: bool = False,
        cluster: tuple[int, int, int] | None = None,
    ) -> Launch:
        """A launch of the unit's kernel (or another entry of it) with all its buffers."""
        args, results, work = len(self.arg_types), len(self.result_types), len(self.workspaces)
        out = tuple(range(args, args + results)) if writes_results else ()
        scratch = tuple(range(args + results, args + results + work))
        return Launch(
            entry=entry or self.entry,
            params=(
                *(BufferParam(i) for i in range(args + results + work)),
                *(ScalarParam(Sym(s), "i64") for s in self.problem.symbols),
            ),
            reads=(*range(args), *(() if writes_work else scratch)),
            writes=(*out, *(scratch if writes_work else ())),
            grid=grid,
            block=(block, 1, 1) if isinstance(block, int) else block,
            cluster=cluster,
            shared=shared,
            pdl=self.pdl,
        )

    def emitted(self, source: str, launches: Sequence[Launch], **derived: object) -> Emitted:
        """The finished kernel."""
        return Emitted("cuda", source, tuple(launches), tuple(self.workspaces), derived)


def function(name: str, params: str, lines: Sequence[str]) -> str:
    """A forced-inline device function."""
    body = "\n".join(f"  {part}" for line in lines for part in line.split("\n"))
    return f"TCC_FN void {name}({params}) {{\n{body}\n}}\n"


def loop(width: int, lines: Sequence[str]) -> list[str]:
    """The statements for every j < width."""
    body = "\n".join(f"  {line}" for line in lines)
    return ['_Pragma("unroll")', f"for (int j = 0; j < {width}; ++j) {{\n{body}\n}}"]
