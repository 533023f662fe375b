# SPDX-License-Identifier: Apache-2.0
"""Expressions: the evaluator, and the native code of segments against it."""

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.codegen.llvm.compile import compile_all, native_target
from tcc.codegen.llvm.segment import EngineTables, native_module
from tcc.errors import FailureError
from tcc.runtime.cpu.objects import ObjectLibrary
from tcc.runtime.expr import evaluate, is_constant, show, symbols_of

leaves = st.one_of(st.integers(-50, 50), st.sampled_from(["m", "n"]))
exprs = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["add", "mul", "min", "max"]), inner, inner, inner).map(list),
        st.tuples(st.sampled_from(["sub", "add"]), inner, inner).map(list),
        st.tuples(st.just("neg"), inner).map(list),
        st.tuples(st.sampled_from(["floordiv", "mod", "ceildiv"]), inner, st.sampled_from([1, 7, -3, 64])).map(list),
    ),
    max_leaves=8,
)


@given(exprs, st.integers(-100, 100), st.integers(0, 100))
def test_evaluator_is_python_arithmetic(expr: Any, m: int, n: int) -> None:
    def python(e: Any) -> str:
        if not isinstance(e, list):
            return f"({e})"
        parts = [python(x) for x in e[1:]]
        signs = {"add": "+", "mul": "*", "sub": "-", "floordiv": "//", "mod": "%"}
        match e[0]:
            case "neg":
                return f"(-{parts[0]})"
            case "ceildiv":
                return f"(-(-{parts[0]} // {parts[1]}))"
            case "min" | "max":
                return f"{e[0]}({', '.join(parts)})"
            case _:
                return "(" + signs[e[0]].join(parts) + ")"

    assert evaluate(expr, {"m": m, "n": n}) == eval(python(expr), {"m": m, "n": n})


def test_native_code_agrees_with_the_evaluator() -> None:
    rng = np.random.default_rng(5)

    def random_expr(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.2:
            return str(rng.choice(["m", "n"])) if rng.random() < 0.6 else int(rng.integers(-40, 40))
        operator = str(rng.choice(["add", "sub", "mul", "neg", "floordiv", "mod", "ceildiv", "min", "max"]))
        if operator == "neg":
            return [operator, random_expr(depth - 1)]
        right: Any = random_expr(depth - 1)
        if operator in ("floordiv", "mod", "ceildiv"):
            right = int(rng.choice([1, 3, 16, -5]))
        return [operator, random_expr(depth - 1), right]

    wanted = [random_expr(4) for _ in range(200)]
    symbols = [{"name": "m"}, {"name": "n"}]
    out = {"space": "arena", "offset": 0, "bytes": 8, "dtype": "i64", "shape": [1]}
    kernel = (
        "define void @k(ptr %a, i64 %f, i64 %l) {\n %p = load ptr, ptr %a\n %s = getelementptr i64, ptr %a, i64 1\n"
    )
    kernel += " %v = load i64, ptr %s\n store i64 %v, ptr %p\n ret void\n}\n"
    body = [
        {
            "op": "launch", "kernel": "k", "tasks": 1, "reads": [], "writes": [0], "serial": True,
            "params": [{"buffer": 0, "offset": 8 * i}, {"scalar": e, "dtype": "i64"}],
        }
        for i, e in enumerate(wanted)
    ]  # fmt: skip
    tables = EngineTables([out], {"k": {"entry": "k"}}, symbols)
    target = native_target()
    native = native_module(tables, [{"op": "segment", "name": "s", "body": body}], target.triple)
    objects = [o.content for o in compile_all([("native", native), ("k", kernel)], target)]
    library = ObjectLibrary(objects, ["s"], "test")
    segment = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 1, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(
        library.address("s")
    )
    for m, n in ((3, 5), (-17, 64), (0, 1)):
        results = (ctypes.c_int64 * len(wanted))()
        table = (ctypes.c_int64 * 4)(ctypes.addressof(results), 0, m, n)
        segment(ctypes.addressof(table), 0, 1, None)
        assert list(results) == [evaluate(e, {"m": m, "n": n}) for e in wanted]


def test_errors_and_printing() -> None:
    with pytest.raises(FailureError, match="'k' is used before"):
        evaluate(["add", 1, "k"], {})
    with pytest.raises(FailureError, match="divides by zero"):
        evaluate(["mod", 1, "k"], {"k": 0})
    for bad in (["pow", 1, 2], ["add"], 1.5, ["neg", 1, 2]):
        with pytest.raises(FailureError, match="not an expression"):
            evaluate(bad, {})
    assert show(["ceildiv", ["mul", 2, "n"], 64]) == "ceildiv((2 * n), 64)"
    assert list(symbols_of(["add", "a", ["mul", "b", 2]])) == ["a", "b"]
    assert is_constant(["add", 1, 2]) and not is_constant("n")
