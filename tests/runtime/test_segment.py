# SPDX-License-Identifier: Apache-2.0
"""Segment functions: where barriers stand, how work is shared, and that any number of workers gives the same bytes."""

from typing import Any

import numpy as np
import pytest

from tcc.codegen.llvm.compile import CpuTarget, compile_all
from tcc.codegen.llvm.segment import EngineTables, barriers, native_module, scalar_bits
from tcc.compiler.engine_writer import to_bytes
from tcc.errors import InputError
from tcc.runtime import load
from tcc.runtime.cpu import team
from tests.runtime.cpu_engines import content, elementwise, launch, segment, tensor

N = 100_000


def tables(*buffers: dict[str, Any]) -> EngineTables:
    return EngineTables(list(buffers), {"k": {"entry": "k"}}, [{"name": "n"}], 1, 1)


def op(reads: list[int], writes: list[int], **more: Any) -> dict[str, Any]:
    return launch("k", 10, [], reads, writes, **more)


A = tensor("arena", [16], offset=0)
B = tensor("arena", [16], offset=64)
C = tensor("arena", [16], offset=128)
OVER_AB = tensor("arena", [16], offset=32)
SYMBOLIC = tensor("arena", [16], offset=["mul", 64, "n"])
X = tensor("input", [16], position=0)
Y = tensor("output", [16], position=0)
HIGH_Y = tensor("view", [4], of=6, offset=48)
POOL = tensor("pool", [16])
LEFT = {**tensor("view", [12], of=6, offset=0), "rows": [16, 8]}
RIGHT = {**tensor("view", [12], of=6, offset=8), "rows": [16, 8]}
WIDE = {**tensor("view", [12], of=6, offset=4), "rows": [16, 8]}
BUFFERS = (A, B, C, OVER_AB, SYMBOLIC, X, Y, HIGH_Y, POOL, LEFT, RIGHT, WIDE)


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ([op([5], [0]), op([0], [1])], [1]),  # read after write
        ([op([5], [0]), op([5], [1]), op([5], [2])], []),  # three independent writes
        ([op([5], [0]), op([5], [1]), op([0, 1], [2])], [2]),  # one barrier covers both
        ([op([0], [1]), op([5], [0])], [1]),  # write after read
        ([op([5], [0]), op([5], [0])], [1]),  # write after write
        ([op([0], [1]), op([0], [2])], []),  # two readers
        ([op([5], [0]), op([3], [2])], [1]),  # overlapping bytes under another id
        ([op([5], [0]), op([4], [2])], [1]),  # symbols decide: taken as overlapping
        ([op([5], [6]), op([7], [0])], [1]),  # a view of what was written
        ([op([5], [8]), op([8], [6])], [1]),  # pool
        ([op([5], [9]), op([5], [10]), op([6], [0])], [2]),  # columns of the same rows, then all of them
        ([op([5], [9]), op([5], [11])], [1]),  # columns that overlap
        ([op([5], [8]), op([5], [6]), op([5], [0])], []),  # different spaces
        ([op([5], [0]), op([0], [1]), op([1], [2])], [1, 2]),
        ([op([5], [0], serial=True), op([0], [1], serial=True)], []),  # both on worker 0
        ([op([5], [0], serial=True), op([0], [1])], [1]),
        ([op([5], [0]), op([0], [1], serial=True), op([1], [2], serial=True), op([2], [6])], [1, 3]),
        ([{"op": "memset", "dst": {"buffer": 0}, "bytes": 64, "value": 0}, op([0], [1])], [1]),
        ([{"op": "memset", "dst": {"buffer": 0}, "bytes": 16, "value": 0},
          {"op": "copy", "src": {"buffer": 0}, "dst": {"buffer": 1}, "bytes": 16}], []),  # small: both on worker 0
        ([op([5], [0]), {"op": "copy", "src": {"buffer": 0}, "dst": {"buffer": 1}, "bytes": 64}], [1]),
        ([{"op": "memset", "dst": {"buffer": 0}, "bytes": 32, "value": 0}, op([5], [3])], []),  # bytes 0..32 and 32..96
    ],
)  # fmt: skip
def test_barriers_stand_where_bytes_conflict(ops: list[dict[str, Any]], expected: list[int]) -> None:
    assert barriers(tables(*BUFFERS), segment("s", *ops)) == expected


def test_single_tasks_go_to_one_worker_after_another() -> None:
    one = [launch("k", 1, [], [5], [i]) for i in (0, 1, 2)]
    text = native_module(tables(*BUFFERS), [segment("s", *one, op([0], [6]), *one[:1])], "x86_64-unknown-linux-gnu")
    assert [text.count(f"urem i64 {n}, %workers") for n in range(4)] == [2, 1, 1, 0]


def test_waves_meet_between_each_other() -> None:
    body = segment("s", launch("k", 12, [], [5], [0], waves=3))
    text = native_module(tables(*BUFFERS), [body], "x86_64-unknown-linux-gnu")
    assert "udiv i64 12, 3" in text
    assert '@tcc_waves(ptr @"k", ptr %args' in text


def test_text_names_kernels_and_no_nodes() -> None:
    body = segment("s", op([5], [0]), {**op([0], [1]), "loc": ["evil\n  unreachable\n"]})
    text = native_module(tables(*BUFFERS), [body], "x86_64-unknown-linux-gnu")
    assert text.count("call void @tcc_barrier(ptr %team, i64 %workers)\n  ; launch k\n") == 1
    assert text.count("; launch k\n") == 2
    assert "node_k" not in text and "unreachable" not in text


def test_other_systems_are_refused() -> None:
    for triple in ("arm64-apple-darwin24", "riscv64-unknown-linux-gnu"):
        with pytest.raises(InputError, match="need Linux on x86_64 or aarch64"):
            native_module(tables(*BUFFERS), [], triple)


@pytest.mark.parametrize(
    ("value", "dtype", "bits"),
    [
        (1.0, "f32", 0x3F800000), (-0.0, "f32", 0x80000000), ("inf", "f32", 0x7F800000), ("-inf", "f16", 0xFC00),
        (1.0, "bf16", 0x3F80), (-1.0, "f64", 0xBFF0000000000000 - (1 << 64)), (-1, "i32", -1), (7, "i64", 7),
    ],
)  # fmt: skip
def test_scalar_bits(value: Any, dtype: str, bits: int) -> None:
    assert scalar_bits(value, dtype) == bits


def test_any_number_of_workers_gives_the_same(rng: np.random.Generator) -> None:
    """Memsets and copies big and small, ragged task counts, a chain in which workers read each other's results."""
    size = 4 * N
    buffers = [
        tensor("input", [N], position=0),
        tensor("output", [N], position=0),
        tensor("arena", [N], offset=0),
        tensor("arena", [N], offset=size // 64 * 64 + 64),
        tensor("output", [N], position=1),
    ]
    reverse = ["add", N]
    body = segment(
        "s",
        {"op": "copy", "src": {"buffer": 0}, "dst": {"buffer": 2}, "bytes": size},
        {"op": "memset", "dst": {"buffer": 4}, "bytes": size - 3, "value": 255},
        {"op": "memset", "dst": {"buffer": 4, "offset": size - 3}, "bytes": 3, "value": 1},
        launch("k_reverse", N, [2, 3, reverse], [2], [3]),
        launch("k_accumulate", N - 1, [3, {"buffer": 2, "offset": 4}], [3, 2], [2]),
        launch("k_reverse", N, [2, 3, reverse], [2], [3], serial=True),
        launch("k_neg", 1, [3, 3], [3], [3]),
        {"op": "copy", "src": {"buffer": 3}, "dst": {"buffer": 1}, "bytes": size},
    )
    engine = load(to_bytes(content(buffers, [body], arena=2 * size + 128)))
    x = rng.standard_normal(N).astype(np.float32)
    expected = x.copy()
    expected[1:] += x[::-1][: N - 1]
    expected = expected[::-1].copy()
    expected[0] = -expected[0]
    tail = np.frombuffer(b"\xff" * (size - 3) + b"\1" * 3, np.uint8)
    before = team.num_threads()
    try:
        for workers in (1, 2, 3, 5, 8):
            team.set_num_threads(workers)
            for _ in range(10):
                result = engine(x)
                np.testing.assert_array_equal(result["y0"], expected)
                np.testing.assert_array_equal(result["y1"].view(np.uint8), tail)
    finally:
        team.set_num_threads(before)


def test_each_task_runs_once() -> None:
    """Task counts around the number of workers; a kernel that adds 1 to its task's element shows every split."""
    buffers = [tensor("output", [64], "i64", position=0)]
    text = "  %at = getelementptr i64, ptr %p0, i64 %i\n  %v = load i64, ptr %at\n"
    text += "  %y = add i64 %v, 1\n  store i64 %y, ptr %at"
    kernels = {"k_count": elementwise("k_count", ["ptr"], text)}
    clear = {"op": "memset", "dst": {"buffer": 0}, "bytes": 512, "value": 0}
    before = team.num_threads()
    try:
        for tasks in (0, 1, 2, 3, 7, 64):
            made = content(buffers, [segment("s", clear, launch("k_count", tasks, [0], [0], [0]))], kernels=kernels)
            engine = load(to_bytes(made))
            for workers in (1, 2, 3, 7):
                team.set_num_threads(workers)
                np.testing.assert_array_equal(engine()["y0"], np.arange(64) < tasks)
    finally:
        team.set_num_threads(before)


def test_native_code_for_arm() -> None:
    """Cross-compiles: the team's functions name nothing that only x86 has."""
    triple = "aarch64-unknown-linux-gnu"
    text = native_module(tables(*BUFFERS), [segment("s", op([5], [0]), op([0], [1]))], triple)
    (made,) = compile_all([("native", text)], CpuTarget(triple, "generic"))
    assert made.content[:4] == b"\x7fELF"
    assert int.from_bytes(made.content[18:20], "little") == 183  # EM_AARCH64
