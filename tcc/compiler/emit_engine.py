# SPDX-License-Identifier: Apache-2.0
"""From a scheduled, packed and planned module to an engine: binaries, buffers and the schedule program."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tcc.codegen.template import BufferParam, Emitted, Launch, ScalarParam, TensorMapParam
from tcc.compiler import emit_control
from tcc.compiler.emit_host import dtype_json, strings_json, type_json
from tcc.compiler.emitted import emit
from tcc.compiler.engine_writer import EngineContent, weight_offsets
from tcc.compiler.phases.pack_constants import constant_array
from tcc.compiler.targets import engine_target, llvm_target
from tcc.ir.core import Block, Value
from tcc.ir.declare import IRError
from tcc.ir.expr import Dim, Expr, Sym, add, maximum, mul, to_json, to_text
from tcc.ir.kernel import BindOp, Constant, Func, Host, HostCall, If, LaunchOp, Loop, Pack, Return
from tcc.ir.kernel.problem import kernel_key, kernels_of, problem_key
from tcc.ir.module import ModuleOp
from tcc.ir.resources import Array
from tcc.ir.targets import Target
from tcc.ir.types import DType, TensorType, free_symbols, on_host
from tcc.passes.kernel.storage import Storage, resolve, size_of

Json = dict[str, Any]
T = TypeVar("T")


def build_engine(module: ModuleOp, target: Target, name: str = "model") -> EngineContent:
    """The engine of a module whose kernels are scheduled and whose memory is planned."""
    return _Engine(module, target, name).build()


def compile_kernels(kernels: Sequence[tuple[str, Emitted]], target: Target) -> dict[str, tuple[str, bytes]]:
    """Kernel id → (source, binary). FailureError names the first kernel that does not compile."""
    if target.is_cuda:
        from tcc.codegen.cuda.compile import CompileError as CudaError
        from tcc.codegen.cuda.compile import compile_many as compile_cuda

        by_arch: dict[str, list[tuple[str, Emitted]]] = {}
        for key, e in kernels:
            by_arch.setdefault(str(e.options.get("arch", target.name)), []).append((key, e))
        out: dict[str, tuple[str, bytes]] = {}
        for arch, jobs in by_arch.items():
            built = compile_cuda([(key, e.source) for key, e in jobs], arch)
            for (key, e), result in zip(jobs, built, strict=True):
                if isinstance(result, CudaError):
                    raise result
                out[key] = (e.source, result.cubin)
        return out
    from tcc.codegen.llvm.compile import compile_all

    objects = compile_all([(key, e.source) for key, e in kernels], llvm_target(target))
    return {key: (e.source, o.content) for (key, e), o in zip(kernels, objects, strict=True)}


class _Engine:
    def __init__(self, module: ModuleOp, target: Target, name: str) -> None:
        self.module = module
        self.target = target
        self.name = name
        hosts = [op for op in module.ops if isinstance(op, Host)]
        if len(hosts) != 1:
            raise IRError(f"an engine is made of one kernel.host, and the module has {len(hosts)}")
        self.host = hosts[0]
        if self.host.arena is None:
            raise IRError("the module's memory is not planned: run plan-memory before the engine is made")
        self.funcs = {f.sym_name: f for f in kernels_of(module)}
        self.storage = resolve(self.host)
        self.buffers: list[Json] = []
        self.known: dict[tuple[Any, ...], int] = {}
        self.weights: list[Array] = []
        self.weight_of: dict[Value, int] = {}
        self.weight_names: dict[str, int] = {}
        self.ids: dict[str, str] = {}
        self.segments = 0
        self.pending: dict[int, None] = {}
        """Pool buffers that the launches of the segment under way write."""
        self.bound: set[str] = set()
        """Symbols that the schedule has bound so far."""
        self.report: list[Json] = []

    def build(self) -> EngineContent:
        used = {op.callee for op in self.host.walk() if isinstance(op, LaunchOp)}
        emitted = {n: emit(f, self.target) for n, f in self.funcs.items() if n in used}
        self.ids = {n: kernel_key(self.funcs[n]) for n in emitted}
        distinct: dict[str, str] = {}
        for n, key in self.ids.items():
            distinct.setdefault(key, n)
        built = compile_kernels([(key, emitted[n]) for key, n in distinct.items()], self.target)
        files: dict[str, bytes] = {}
        kernels: dict[str, Json] = {}
        locs: dict[str, list[str]] = {}
        for op in self.host.walk():
            if isinstance(op, LaunchOp):
                where = locs.setdefault(self.ids[op.callee], [])
                where += [x for x in op.loc if x not in where]
        extension = ("cu", "cubin") if self.target.is_cuda else ("ll", "o")
        for key, n in distinct.items():
            source, binary = built[key]
            files[f"kernels/{key}.{extension[0]}"] = source.encode()
            files[f"kernels/{key}.{extension[1]}"] = binary
            for i, launch in enumerate(emitted[n].launches):
                kernels[f"{key}.{i}" if i else key] = self.kernel_row(self.funcs[n], key, launch, extension, locs[key])
                if "arch" in emitted[n].options:
                    kernels[f"{key}.{i}" if i else key]["arch"] = emitted[n].options["arch"]
        inputs = self.inputs()
        outputs = self.outputs_before()
        schedule = self.block(self.host.body.block, emitted)
        outputs = self.outputs(outputs)
        content = EngineContent(
            model=self.name, target=dict(engine_target(self.target)), inputs=inputs, outputs=outputs,
            buffers=self.buffers, schedule=schedule, arena={"bytes": self.host.arena, "align": 256}, kernels=kernels,
            report=self.report, files=files, weights=self.weights, symbols=self.symbols(),
        )  # fmt: skip
        self.place_weights()
        if not self.target.is_cuda:
            content.native = {"source": "kernels/native.ll", "binary": "kernels/native.o"}
            files |= native_files(content.buffers, content, self.target)
        return content

    def kernel_row(self, func: Func, key: str, launch: Launch, extension: tuple[str, str], loc: list[str]) -> Json:
        return {
            "files": {"source": f"kernels/{key}.{extension[0]}", "binary": f"kernels/{key}.{extension[1]}"},
            "entry": launch.entry, "template": func.template, "config": dict(func.config),
            "problem": problem_key(func), "loc": loc, "derived": _plain(func.derived),
        }  # fmt: skip

    def symbols(self) -> list[Json]:
        """Extents that data decide."""
        found = sorted({s for op in self.host.walk() for r in op.results for s in free_symbols(r.type)} | self.bound)
        return [{"name": s, "input": None, "axis": None, "min": 0, "max": None, "divisor": 1} for s in found]

    # Buffers.

    def inputs(self) -> list[Json]:
        rows: list[Json] = []
        for i, (v, name) in enumerate(zip(self.host.body.block.args, self.host.arg_names, strict=True)):
            if on_host(v.type):
                b = self.add(("host", v), {"space": "host", **type_json(v.type)})
                rows.append({"name": name, **type_json(v.type), "buffer": b})
                continue
            t = _tensor(v)
            b = self.add(("input", i), {"space": "input", "position": i, **_shape(t)})
            rows.append({"name": name, "dtype": t.dtype.name, "shape": _dims(t), "buffer": b})
        return rows

    def outputs_before(self) -> list[Json]:
        """Output rows; those that kernels write in the caller's memory get their buffers first."""
        rows: list[Json] = []
        places = self.places()
        returned = self.host.body.block.terminator
        assert isinstance(returned, Return)
        for i, (v, name) in enumerate(zip(returned.operands, self.host.result_names, strict=True)):
            if on_host(v.type):
                rows.append({"name": name, **type_json(v.type), "value": v})
                continue
            t = _tensor(v)
            row: Json = {"name": name, "dtype": t.dtype.name, "shape": _dims(t), "value": v}
            if (f"output{i}",) in {p[:1] for p in places.values()}:
                row["buffer"] = self.add(("output", i), {"space": "output", "position": i, **_shape(t)})
            rows.append(row)
        return rows

    def outputs(self, rows: list[Json]) -> list[Json]:
        for row in rows:
            v = row.pop("value")
            if "buffer" not in row:
                row["buffer"] = b = self.buffer(v)
                if self.buffers[b]["space"] == "output":  # another output has it: the runtime copies this one
                    row["buffer"] = self.view(b, 0, _tensor(v))
        return rows

    def places(self) -> dict[Value, tuple[str, int]]:
        if not hasattr(self, "_places"):
            self._places: dict[Value, tuple[str, int]] = {}
            for op in self.host.walk():
                for r, place in zip(op.results, op.attrs.get("plan.place", ()), strict=False):
                    self._places[r] = place
                if isinstance(op, Loop):
                    self._places[op.iteration] = op.attrs["plan.iteration"]
                    self._places.update(zip(op.variables, op.attrs.get("plan.place", ()), strict=False))
        return self._places

    def add(self, key: tuple[Any, ...], row: Json) -> int:
        if key not in self.known:
            self.known[key] = len(self.buffers)
            self.buffers.append(row)
        return self.known[key]

    def buffer(self, v: Value) -> int:
        """The id of the buffer of a value."""
        if on_host(v.type):
            return self.host_buffer(v)
        where: Storage = self.storage[v]
        t = _tensor(v)
        array = constant_array(v, self.module) if where.root not in self.places() else None
        if array is not None:
            return self.weight(v, array, t)
        root = where.root
        place = self.places().get(root)
        offset = where.offset
        if place is not None and place[0].startswith("pool"):
            base = self.pool(root, place[0])
            same = offset == 0 and _shape(t).items() <= self.buffers[base].items()
            return base if same else self.view(base, offset, t)
        if place is not None and place[0] == "arena":
            whole = _tensor(root)
            at = {"space": "arena", "offset": place[1], **_shape(whole), "bytes": size_of(root)}
            if offset == 0:
                at |= _shape(t)
                return self.add(("arena", place[1], repr(at["bytes"]), *_key(t)), at)
            base = self.add(("arena", place[1], at["bytes"], *_key(whole)), at)
            return self.view(base, offset, t)
        if place is not None:
            position = int(place[0].removeprefix("output"))
            base = self.known["output", position]
            offset += place[1]
        elif isinstance(root.defining_op, Constant | Pack):
            base = self.buffer(root)
        else:
            position = self.host.body.block.args.index(root)  # type: ignore[arg-type]
            base = self.known["input", position]
        whole = self.buffers[base]
        if offset == 0 and _shape(t).items() <= whole.items():
            return base
        return self.view(base, offset, t)

    def pool(self, root: Value, slot: str) -> int:
        """The id of the pool buffer that a root lies in."""
        return self.add((slot,), {"space": "pool", **_shape(_tensor(root))})

    def host_buffer(self, v: Value) -> int:
        """The id of the buffer of strings, a sequence or an optional; a constant of strings lies in its row."""
        row = {"space": "host", **type_json(v.type)}
        array = constant_array(v, self.module)
        if array is None:
            return self.add(("host", v), row)
        texts = strings_json(array)
        return self.add(("strings", str(texts), array.shape), {**row, "strings": texts})

    def view(self, base: int, offset: int, t: TensorType) -> int:
        """The id of a view of a buffer."""
        row = {"space": "view", "of": base, "offset": offset, **_shape(t)}
        rows = _rows(t)
        if rows is not None:
            row["rows"] = rows
        return self.add(("view", base, offset, _span(t), str(rows), *_key(t)), row)

    def weight(self, v: Value, array: Array, t: TensorType) -> int:
        digest = hashlib.sha256(f"{t.dtype.name}|".encode() + array.tobytes()).hexdigest()
        if digest not in self.weight_names:
            self.weight_names[digest] = len(self.weights)
            self.weights.append(array)
        n = self.weight_names[digest]
        return self.add(("weight", n, *_key(t)), {"space": "weight", "name": f"w{n}", "index": n, **_shape(t)})

    def place_weights(self) -> None:
        offsets = weight_offsets([a.nbytes for a in self.weights])
        for row in self.buffers:
            if row["space"] == "weight":
                row["offset"] = offsets[row.pop("index")]

    # The schedule.

    def block(self, block: Block, emitted: Mapping[str, Emitted]) -> list[Json]:
        out: list[Json] = []
        run: list[Json] = []

        def close() -> None:
            out.extend({"op": "alloc", "buffer": b} for b in self.pending)
            self.pending.clear()
            if run:
                out.append(self.segment(list(run)))
                run.clear()

        for op in block.ops:
            if isinstance(op, LaunchOp):
                run += self.launch(op, emitted[op.callee])
            elif isinstance(op, If):
                close()
                out.append(emit_control.branch(self, op, emitted))
            elif isinstance(op, Loop):
                lets, copies, assigns = emit_control.entering(self, op)
                out += lets
                run += copies
                close()
                out += assigns
                out += emit_control.loop(self, op, emitted)
            elif isinstance(op, HostCall):
                close()
                out.append(self.host_call(op))
            elif isinstance(op, BindOp):
                close()
                out += self.bind(op)
        close()
        return out

    def segment(self, body: list[Json]) -> Json:
        """A new segment of device ops."""
        self.segments += 1
        return {"op": "segment", "name": f"segment_{self.segments - 1}", "body": body}

    def launch(self, op: LaunchOp, e: Emitted) -> list[Json]:
        operands = [self.buffer(v) for v in (*op.operands, *op.results)]
        out: list[Json] = []
        for w, size, offset in zip(
            e.workspaces, op.attrs.get("workspace") or (), op.attrs.get("plan.workspace", ()), strict=True
        ):
            row = {"space": "arena", "offset": offset, "bytes": size, "dtype": "u8", "shape": [size]}
            operands.append(self.add(("arena", offset, size, "u8", (size,)), row))
            if w.zeroed:
                out.append({"op": "memset", "dst": {"buffer": operands[-1]}, "bytes": size, "value": 0})
        key = self.ids[op.callee]
        env = dict(zip(self.funcs[op.callee].symbols, op.extents, strict=True))
        for i, launch in enumerate(e.launches):
            row = launch_row(f"{key}.{i}" if i else key, launch.bound(env), operands, self.target, op.loc)
            out.append(row)
        for r in op.results:
            root = self.storage[r].root
            place = self.places().get(root, ("", 0))[0]
            if place.startswith("pool"):
                self.pending[self.pool(root, place)] = None
        return out

    def bind(self, op: BindOp) -> list[Json]:
        source = self.buffer(op.x)
        self.bound.update(op.symbols)
        return [
            {
                "op": "let", "symbol": s, "src": {"buffer": source, "offset": 8 * p}, "dtype": "i64", "min": op.least,
                "loc": list(op.loc),
            }
            for s, p in zip(op.symbols, op.places, strict=True)
        ]  # fmt: skip

    def host_call(self, op: HostCall) -> Json:
        given = op.attrs.get("kernel.given") or (True,) * len(op.operands)
        rest = iter(op.operands)
        inputs = [self.buffer(next(rest)) if g else None for g in given]
        attrs = {k: {"dtype": dtype_json(v)} if isinstance(v, DType) else _plain(v) for k, v in op.arguments.items()}
        self.report.append(
            {"kind": "host-op", "message": f"{op.function} runs on the host: {op.reason}", "loc": list(op.loc)}
        )
        types = [r.type for r in op.results if isinstance(r.type, TensorType)]
        dims = [d.name for t in types for d in t.shape if isinstance(d, Sym)]
        binds = [d for d in _unique(dims) if d not in self.bound]
        self.bound.update(binds)
        row: Json = {
            "op": "host_call", "function": op.function, "inputs": inputs,
            "outputs": [self.buffer(r) for r in op.results], "attrs": attrs, "loc": list(op.loc),
        }  # fmt: skip
        return row | ({"binds": binds} if binds else {})


def native_files(buffers: Sequence[Json], content: EngineContent, target: Target) -> dict[str, bytes]:
    """The source and the object of a CPU engine's segments, over its buffers."""
    from tcc.codegen.llvm.compile import compile_all
    from tcc.codegen.llvm.segment import EngineTables, native_module

    tables = EngineTables(buffers, content.kernels, content.symbols, len(content.inputs), len(content.outputs))
    cpu = llvm_target(target)
    text = native_module(tables, content.schedule, cpu.triple)
    (built,) = compile_all([("the segments", text)], cpu)
    return {"kernels/native.ll": text.encode(), "kernels/native.o": built.content}


def _tensor(v: Value) -> TensorType:
    assert isinstance(v.type, TensorType)
    return v.type


def _span(t: TensorType) -> Dim:
    """Bytes from the first to the last element of a tensor that may be strided."""
    if t.strides is None:
        return t.nbytes
    if 0 in t.shape:
        return 0
    last: Dim = 0
    for d, s in zip(t.shape, t.element_strides, strict=True):
        last = add(last, mul(add(d, -1), s))
    return maximum(mul(add(last, 1), t.dtype.bytes), 0)


def _rows(t: TensorType) -> list[int] | None:
    """[period, width] in bytes where a strided tensor touches only the first `width` of every `period` bytes."""
    if t.strides is None or not t.is_static or not all(isinstance(s, int) for s in t.strides):
        return None
    dims = [(int(d), int(s)) for d, s in zip(t.static_shape, t.strides, strict=True) if d != 1]  # type: ignore[arg-type]
    width = 1
    for i, (extent, stride) in reversed(list(enumerate(dims))):
        if width < stride and all(s % stride == 0 for _, s in dims[:i]):
            return [stride * t.dtype.bytes, width * t.dtype.bytes]
        width += (extent - 1) * stride
    return None


def _dims(t: TensorType) -> list[Any]:
    return [to_json(d) for d in t.shape]


def _shape(t: TensorType) -> Json:
    return {"bytes": to_json(_span(t)), "dtype": t.dtype.name, "shape": _dims(t)}


def _key(t: TensorType) -> tuple[Any, ...]:
    return (t.dtype.name, t.shape)


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))


def launch_row(kernel: str, launch: Launch, operands: Sequence[int], target: Target, loc: Sequence[str]) -> Json:
    """A launch of the schedule; `operands` are the buffer ids of the kernel's operands, results and workspaces.

    A pointer to what the launch neither reads nor writes is null: nothing orders the launch after its producer.
    """
    touched = {*launch.reads, *launch.writes}
    null: Json = {"scalar": 0, "dtype": "i64"}
    row: Json = {
        "op": "launch", "kernel": kernel,
        "params": [
            null if isinstance(p, BufferParam) and p.buffer not in touched else _param(p, operands)
            for p in launch.params
        ],
        "reads": _unique(operands[i] for i in launch.reads), "writes": _unique(operands[i] for i in launch.writes),
        "loc": list(loc),
    }  # fmt: skip
    if target.is_cuda:
        row |= {
            "grid": [to_json(g) for g in launch.grid], "block": list(launch.block),
            "cluster": None if launch.cluster is None else list(launch.cluster), "shared": launch.shared,
            "pdl": launch.pdl, "cooperative": launch.cooperative,
        }  # fmt: skip
        return row
    row["tasks"] = to_json(launch.tasks)
    if launch.tasks == 1 and not launch.heavy:
        row["serial"] = True
    if launch.waves > 1:
        row["waves"] = launch.waves
    return row


def _param(p: BufferParam | ScalarParam | TensorMapParam, operands: Sequence[int]) -> Json:
    if isinstance(p, BufferParam):
        return {"buffer": operands[p.buffer], **({"offset": to_json(p.offset)} if p.offset != 0 else {})}
    if isinstance(p, ScalarParam):
        value = p.value if isinstance(p.value, float) else to_json(p.value)
        return {"scalar": value, "dtype": p.dtype}
    spec: Json = {
        "buffer": operands[p.buffer], "offset": to_json(p.offset), "dtype": p.dtype,
        "dims": [to_json(d) for d in p.dims], "strides": [to_json(s) for s in p.strides], "box": list(p.box),
        "swizzle": p.swizzle,
    }  # fmt: skip
    if p.element_strides:
        spec["element_strides"] = list(p.element_strides)
    return {"tensor_map": spec}


def _plain(value: Any) -> Any:
    """An attribute as JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, DType):
        return value.name
    return to_text(value) if isinstance(value, Expr) else value
