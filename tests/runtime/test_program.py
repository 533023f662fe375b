# SPDX-License-Identifier: Apache-2.0
"""Schedules with control flow, host calls and sizes that data decides, on the CPU."""

from typing import Any

import numpy as np
import pytest

from tcc.compiler.engine_writer import EngineContent, to_bytes
from tcc.errors import FailureError, InputError
from tcc.runtime import Engine, load
from tests.runtime.cpu_engines import content, launch, segment, tensor

N = 100


def place(buffer: int, offset: int = 0) -> dict[str, Any]:
    return {"buffer": buffer, "offset": offset}


def copy(source: int, destination: int, nbytes: Any) -> dict[str, Any]:
    return {"op": "copy", "src": place(source), "dst": place(destination), "bytes": nbytes}


def run(made: EngineContent, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of two calls, which must agree."""
    engine = load(to_bytes(made))
    first, second = engine(*inputs), engine(*inputs)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    return first


def conditional() -> EngineContent:
    """y0 = x0[0] > 0 ? x0 + x0 : -x0."""
    buffers = [
        tensor("input", [N], position=0),
        tensor("output", [N], position=0),
        tensor("arena", [1], "bool", offset=0),
    ]
    schedule = [
        segment("test", launch("k_greater", 1, [0, 2, 0.0], [0], [2])),
        {
            "op": "if",
            "cond": 2,
            "then": [segment("yes", launch("k_add", N, [0, 0, 1], [0], [1]))],
            "else": [segment("no", launch("k_neg", N, [0, 1], [0], [1]))],
            "loc": ["If_0"],
        },
    ]
    return content(buffers, schedule, arena=64)


def test_if_runs_the_branch_that_data_chooses(rng: np.random.Generator) -> None:
    engine = load(to_bytes(conditional()))
    x = rng.standard_normal(N).astype(np.float32)
    bound = engine.bind([x])
    for first in (1.0, -1.0, 2.0, 0.0):
        x[0] = first
        expected = x + x if first > 0 else -x
        np.testing.assert_array_equal(engine(x)["y0"], expected)
        np.testing.assert_array_equal(bound()["y0"], expected)
    rows = engine.profile([x])
    assert [(r.name, r.segment) for r in rows] == [("k_greater", "test"), ("k_neg", "no")]


def loop_with(**how: Any) -> EngineContent:
    """y0 = x0 added to itself once per iteration: sum = x0; loop: next = sum + x0, seen += next; y0 = sum, count rows
    scanned.
    """
    buffers = [
        tensor("input", [4], position=0),
        tensor("output", [4], position=0),
        tensor("arena", [4], offset=0),  # 2: sum
        tensor("arena", [4], offset=64),  # 3: next
        tensor("arena", [1], "bool", offset=128),  # 4: go on
        tensor("arena", [1], "bool", offset=192),  # 5: go on next time
        tensor("arena", [1], "i64", offset=256),  # 6: iteration
        tensor("input", [1], "i64", position=1),  # 7: trip count
        tensor("pool", ["t", 4]),  # 8: scan
        tensor("input", [1], position=2),  # 9: sum stays positive as long as sum[0] < limit: limit - sum > 0
        tensor("arena", [4], offset=320),  # 10
        tensor("arena", [4], offset=384),  # 11
    ]
    body = [
        launch("k_add", 4, [2, 0, 3], [2, 0], [3]),
        launch("k_neg", 1, [3, 10], [3], [10]),
        launch("k_add", 1, [10, 9, 11], [10, 9], [11]),
        launch("k_greater", 1, [11, 5, 0.0], [11], [5]),
    ]
    loop = {
        "op": "loop", "trip": None, "trip_expr": None, "cond": None, "iteration": 6, "count": "t",
        "carried": [{"var": 2, "next": 3}, {"var": 4, "next": 5}], "scan": [{"from": 3, "to": 8}],
        "body": [segment("body", *body)], **how,
    }  # fmt: skip
    schedule = [
        segment("init", copy(0, 2, 16), {"op": "memset", "dst": place(4), "bytes": 1, "value": 1}),
        loop,
        segment("end", copy(2, 1, 16)),
    ]
    outputs = [
        {"name": "y0", "dtype": "f32", "shape": [4], "buffer": 1},
        {"name": "rows", "dtype": "f32", "shape": ["t", 4], "buffer": 8},
        {"name": "last", "dtype": "i64", "shape": [1], "buffer": 6},
    ]
    symbols = [{"name": "t", "input": None, "axis": None, "min": 0, "max": None, "divisor": 1}]
    return content(buffers, schedule, arena=448, symbols=symbols, outputs=outputs)


@pytest.mark.parametrize(
    ("how", "trip", "limit", "done"),
    [
        ({"trip": place(7)}, 3, 0, 3),
        ({"trip": place(7)}, 0, 0, 0),
        ({"trip_expr": 5}, 0, 0, 5),
        ({"cond": 4}, 0, 6, 5),  # next is 2, 3, 4, 5, 6: the fifth stops it
        ({"cond": 4, "trip": place(7)}, 4, 6, 4),
        ({"cond": 4, "trip": place(7)}, 100, 6, 5),
    ],
)
def test_loop(how: dict[str, Any], trip: int, limit: float, done: int) -> None:
    x = np.array([1, 2, 3, 4], np.float32)
    result = run(loop_with(**how), x, np.array([trip]), np.array([limit], np.float32))
    np.testing.assert_array_equal(result["y0"], x * (1 + done))
    np.testing.assert_array_equal(result["rows"], x * np.arange(2, 2 + done, dtype=np.float32)[:, None])
    if done:
        assert result["last"] == [done - 1]


def host_program() -> EngineContent:
    """y0 = the indices of x0's non-zero elements, y1 = the values there doubled (sizes that data decides)."""
    buffers = [
        tensor("input", [N], position=0),
        tensor("pool", [1, "k"], "i64"),  # 1: indices
        tensor("pool", ["k"]),  # 2: gathered
        tensor("pool", ["k"]),  # 3: doubled
        tensor("view", ["k"], "i64", of=1, offset=0),
    ]
    schedule = [
        {"op": "host_call", "function": "non_zero", "inputs": [0], "outputs": [1], "attrs": {}, "loc": ["NonZero_0"]},
        {"op": "host_call", "function": "gather", "inputs": [0, 4], "outputs": [2], "attrs": {"axis": 0}, "loc": ["g"]},
        {"op": "alloc", "buffer": 3},
        segment("s", launch("k_add", "k", [2, 2, 3], [2], [3])),
    ]
    outputs = [
        {"name": "y0", "dtype": "i64", "shape": [1, "k"], "buffer": 1},
        {"name": "y1", "dtype": "f32", "shape": ["k"], "buffer": 3},
    ]
    symbols = [{"name": "k", "input": None, "axis": None, "min": 0, "max": None, "divisor": 1}]
    return content(buffers, schedule, symbols=symbols, outputs=outputs)


@pytest.mark.parametrize("count", [0, 1, 17, N])
def test_host_calls_and_sizes_that_data_decides(rng: np.random.Generator, count: int) -> None:
    x = np.zeros(N, np.float32)
    x[rng.permutation(N)[:count]] = rng.uniform(1, 2, count)
    result = run(host_program(), x)
    np.testing.assert_array_equal(result["y0"], np.array(np.nonzero(x)))
    np.testing.assert_array_equal(result["y1"], 2 * x[x != 0])


def test_late_outputs_into_given_memory() -> None:
    engine = load(to_bytes(host_program()))
    x = np.zeros(N, np.float32)
    x[[3, 5]] = 1
    given = np.empty(2, np.float32)
    assert engine.run([x], out={"y1": given})["y1"] is given
    np.testing.assert_array_equal(given, [2, 2])
    x[9] = 1
    with pytest.raises(InputError, match="the output 'y1' came out with the shape 3, the array given for it has 2"):
        engine.run([x], out={"y1": given})
    first = engine(x)["y1"]
    engine(x * 2)
    np.testing.assert_array_equal(first, [2, 2, 2])


def test_profile_lists_host_calls() -> None:
    engine = load(to_bytes(host_program()))
    rows = engine.profile([np.ones(N, np.float32)])
    assert [(r.name, r.op, r.loc) for r in rows] == [
        ("non_zero", "host_call", ("NonZero_0",)),
        ("gather", "host_call", ("g",)),
        ("k_add", "launch", ("node_k_add",)),
    ]


def let_program() -> EngineContent:
    """y0[k] = the last k elements of x0 in reverse, for k = x1[1]."""
    buffers = [
        tensor("input", [N], position=0),
        tensor("input", [2], "i64", position=1),
        tensor("pool", ["k"]),
    ]
    last = {"buffer": 0, "offset": ["mul", 4, ["sub", N, "k"]]}
    schedule = [
        {"op": "let", "symbol": "k", "src": place(1, 8), "dtype": "i64"},
        {"op": "alloc", "buffer": 2},
        segment("s", launch("k_reverse", "k", [last, 2, ["add", "k"]], [0], [2])),
    ]
    outputs = [{"name": "y0", "dtype": "f32", "shape": ["k"], "buffer": 2}]
    symbols = [{"name": "k", "input": None, "axis": None, "min": 0, "max": None, "divisor": 1}]
    return content(buffers, schedule, symbols=symbols, outputs=outputs)


def test_let_reads_a_size_from_memory(rng: np.random.Generator) -> None:
    engine = load(to_bytes(let_program()))
    x = rng.standard_normal(N).astype(np.float32)
    for k in (1, 50, N, 7):
        np.testing.assert_array_equal(engine(x, np.array([-1, k]))["y0"], x[::-1][:k])


def test_attrs_of_host_calls() -> None:
    buffers = [
        tensor("input", [3], position=0),
        tensor("output", [3], "i64", position=0),
        tensor("input", [1], "i64", position=1),
    ]
    call = {"op": "host_call", "function": "cast", "inputs": [0], "outputs": [1], "attrs": {"to": {"dtype": "i64"}}}
    result = run(content(buffers, [call]), np.array([1.5, -2.5, 9], np.float32), np.array([0]))
    np.testing.assert_array_equal(result["y0"], [1, -2, 9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": "summon"}, "calls 'summon' on the host, which this runtime does not have"),
        ({"function": "__doc__"}, "calls '__doc__' on the host"),
        ({"function": "relu"}, "'relu' gave f32 where the engine expects i64"),
        ({"attrs": {"to": {"dtype": "i64"}}, "inputs": [2]}, "gave the shape 2 where the engine expects 3"),
        ({"function": "reshape", "inputs": [0, 2]}, r"'reshape' \(of Host_7\) cannot take these values"),
    ],
)
def test_bad_host_calls(change: dict[str, Any], message: str) -> None:
    buffers = [
        tensor("input", [3], position=0),
        tensor("output", [3], "i64", position=0),
        tensor("input", [2], "i64", position=1),
    ]
    call = {"op": "host_call", "function": "cast", "inputs": [0], "outputs": [1], "attrs": {}, "loc": ["Host_7"]}
    engine: Engine = load(to_bytes(content(buffers, [{**call, **change}])))
    with pytest.raises(FailureError, match=message):
        engine(np.ones(3, np.float32), np.array([5, 5]))


def test_symbol_without_a_value() -> None:
    made = let_program()
    made.schedule.pop(0)
    with pytest.raises(FailureError, match="'k' is used before anything gives it a value"):
        load(to_bytes(made))(np.ones(N, np.float32), np.array([1, 2]))


def test_pool_buffer_without_memory() -> None:
    buffers = [tensor("input", [N], position=0), tensor("pool", [N])]
    outputs = [{"name": "y0", "dtype": "f32", "shape": [N], "buffer": 1}]
    with pytest.raises(FailureError, match="buffer 1 of the engine's pool is used before it is allocated"):
        load(to_bytes(content(buffers, [], outputs=outputs)))(np.ones(N, np.float32))
