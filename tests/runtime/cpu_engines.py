# SPDX-License-Identifier: Apache-2.0
"""Small CPU engines made of hand-written LLVM kernels, for the tests of the runtime."""

from typing import Any

import numpy as np

from tcc.codegen.llvm.compile import compile_all, native_target
from tcc.codegen.llvm.segment import EngineTables, native_module
from tcc.compiler.engine_writer import EngineContent, weight_offsets

# Each kernel does task t = element t (or row t of 64 floats for `row_*`): slots hold pointers, then scalars.
_ELEMENTWISE = """
define void @{name}(ptr %args, i64 %first, i64 %last) {{
entry:
{loads}
  br label %loop
loop:
  %i = phi i64 [ %first, %entry ], [ %next, %loop ]
{body}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %last
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""


def elementwise(name: str, slots: list[str], body: str) -> str:
    """LLVM IR of a kernel that runs `body` for each task %i; slot k is %p<k>, of the given LLVM type."""
    lines: list[str] = []
    for k, kind in enumerate(slots):
        lines.append(f"  %a{k} = getelementptr i64, ptr %args, i64 {k}")
        lines.append(f"  %p{k} = load {kind}, ptr %a{k}")
    return _ELEMENTWISE.format(name=name, loads="\n".join(lines), body=body)


def _load(name: str, slot: int, kind: str = "float") -> str:
    return f"  %{name}.at = getelementptr {kind}, ptr %p{slot}, i64 %i\n  %{name} = load {kind}, ptr %{name}.at\n"


def _store(name: str, slot: int, kind: str = "float") -> str:
    return f"  %{name}.to = getelementptr {kind}, ptr %p{slot}, i64 %i\n  store {kind} %{name}, ptr %{name}.to\n"


KERNELS: dict[str, str] = {
    # y = x * s + w
    "k_affine": elementwise(
        "k_affine",
        ["ptr", "ptr", "ptr", "float"],
        _load("x", 0) + _load("w", 1) + "  %m = fmul float %x, %p3\n  %y = fadd float %m, %w\n" + _store("y", 2),
    ),
    # y = a + b
    "k_add": elementwise(
        "k_add", ["ptr", "ptr", "ptr"], _load("a", 0) + _load("b", 1) + "  %y = fadd float %a, %b\n" + _store("y", 2)
    ),
    # y = -x
    "k_neg": elementwise("k_neg", ["ptr", "ptr"], _load("x", 0) + "  %y = fneg float %x\n" + _store("y", 1)),
    # y[i] = x[n - 1 - i]: every worker reads what others wrote
    "k_reverse": elementwise(
        "k_reverse",
        ["ptr", "ptr", "i64"],
        "  %n1 = sub i64 %p2, 1\n  %j = sub i64 %n1, %i\n  %x.at = getelementptr float, ptr %p0, i64 %j\n"
        "  %y = load float, ptr %x.at\n" + _store("y", 1),
    ),
    # y += x
    "k_accumulate": elementwise(
        "k_accumulate", ["ptr", "ptr"], _load("x", 0) + _load("o", 1) + "  %y = fadd float %o, %x\n" + _store("y", 1)
    ),
    # flag = x[0] > limit
    "k_greater": elementwise(
        "k_greater",
        ["ptr", "ptr", "float"],
        _load("x", 0) + "  %c = fcmp ogt float %x, %p2\n  %b = zext i1 %c to i8\n" + _store("b", 1, "i8"),
    ),
}  # fmt: skip


def launch(
    kernel: str, tasks: Any, params: list[Any], reads: list[int], writes: list[int], **more: Any
) -> dict[str, Any]:
    """A CPU launch; an int among `params` is a buffer, a float an f32 scalar, anything else an i64 expression or a
    whole parameter.
    """

    def param(p: Any) -> Any:
        if isinstance(p, dict):
            return p
        if isinstance(p, int):
            return {"buffer": p}
        if isinstance(p, float):
            return {"scalar": p, "dtype": "f32"}
        return {"scalar": p, "dtype": "i64"}

    op = {"op": "launch", "kernel": kernel, "tasks": tasks, "params": [param(p) for p in params]}
    return {**op, "reads": reads, "writes": writes, "loc": [f"node_{kernel}"], **more}


def segment(name: str, *body: dict[str, Any]) -> dict[str, Any]:
    return {"op": "segment", "name": name, "body": list(body)}


def tensor(space: str, shape: list[Any], dtype: str = "f32", **more: Any) -> dict[str, Any]:
    """A buffer entry; its bytes follow from shape and dtype."""
    size = {"f32": 4, "i64": 8, "bool": 1}[dtype]
    nbytes = size * int(np.prod(shape)) if all(isinstance(d, int) for d in shape) else ["mul", size, *shape]
    return {"space": space, "shape": shape, "dtype": dtype, "bytes": nbytes, **more}


def content(
    buffers: list[dict[str, Any]],
    schedule: list[dict[str, Any]],
    *,
    arena: Any = 0,
    weights: tuple[np.ndarray, ...] = (),
    symbols: list[dict[str, Any]] | None = None,
    kernels: dict[str, str] = KERNELS,
    outputs: list[dict[str, Any]] | None = None,
) -> EngineContent:
    """An engine for this machine; inputs are named x0, x1 ..., outputs y0, y1 ... after the buffers of those spaces."""

    def ports(space: str, letter: str) -> list[dict[str, Any]]:
        found = sorted((b["position"], i, b) for i, b in enumerate(buffers) if b["space"] == space)
        return [{"name": f"{letter}{p}", "dtype": b["dtype"], "shape": b["shape"], "buffer": i} for p, i, b in found]

    for offset, buffer in zip(
        weight_offsets([w.nbytes for w in weights]), [b for b in buffers if b["space"] == "weight"], strict=True
    ):
        buffer["offset"] = offset
    inputs = ports("input", "x")
    outputs = outputs if outputs is not None else ports("output", "y")
    target = native_target()
    table = {
        name: {
            "files": {"source": f"kernels/{name}.ll", "binary": f"kernels/{name}.o"},
            "entry": name, "template": "hand", "config": {}, "problem": "0" * 64, "loc": [],
        }
        for name in kernels
    }  # fmt: skip
    native = native_module(
        EngineTables(buffers, table, symbols or [], len(inputs), len(outputs)), schedule, target.triple
    )
    texts = {**kernels, "native": native}
    files: dict[str, bytes] = {}
    for item, text in zip(compile_all(list(texts.items()), target), texts.values(), strict=True):
        files[f"kernels/{item.name}.o"] = item.content
        files[f"kernels/{item.name}.ll"] = text.encode()
    return EngineContent(
        model="test",
        target={"kind": "cpu", "name": target.cpu, "triple": target.triple, "features": list(target.features)},
        inputs=inputs,
        outputs=outputs,
        buffers=buffers,
        schedule=schedule,
        symbols=symbols or [],
        arena={"bytes": arena, "align": 64},
        kernels=table,
        native={"source": "kernels/native.ll", "binary": "kernels/native.o"},
        files=files,
        weights=weights,
    )


def affine(n: int = 1000) -> EngineContent:
    """y0 = reverse(x0 * 2 + w) + x0, through two arena buffers: n floats."""
    weight = np.linspace(0, 1, n, dtype=np.float32)
    stride = -(-4 * n // 64) * 64
    buffers = [
        tensor("input", [n], position=0),
        tensor("output", [n], position=0),
        tensor("weight", [n], name="w0"),
        tensor("arena", [n], offset=0),
        tensor("arena", [n], offset=stride),
    ]
    body = segment(
        "segment_0",
        launch("k_affine", n, [0, 2, 3, 2.0], [0, 2], [3]),
        launch("k_reverse", n, [3, 4, ["add", n]], [3], [4]),
        launch("k_add", n, [4, 0, 1], [4, 0], [1]),
    )
    return content(buffers, [body], arena=2 * stride, weights=(weight,))


def affine_expected(x: np.ndarray) -> np.ndarray:
    """What `affine` computes."""
    return (x * np.float32(2) + np.linspace(0, 1, x.size, dtype=np.float32))[::-1] + x
