# SPDX-License-Identifier: Apache-2.0
"""Calling an engine: names, dtypes and shapes, and who owns which memory."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tcc.compiler.engine_writer import EngineContent, to_bytes, write
from tcc.errors import FailureError, InputError
from tcc.runtime import Engine, load
from tcc.runtime.cpu import team
from tests.runtime.cpu_engines import affine, affine_expected, content, launch, segment, tensor

N = 1000


@pytest.fixture(scope="module")
def file() -> bytes:
    return to_bytes(affine(N))


@pytest.fixture(params=[1, 2, 3], ids="{}-threads".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = team.num_threads()
    team.set_num_threads(request.param)
    yield request.param
    team.set_num_threads(before)


@pytest.fixture(scope="module")
def engine(file: bytes) -> Engine:
    return load(file)


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(N, dtype=np.float32)


def symbolic() -> EngineContent:
    """y0[2n] = x0[2n] + x0[2n] for n a multiple of 8 up to 512, through an arena that grows with n."""
    size = ["mul", 2, "n"]
    buffers = [
        tensor("input", [size], position=0),
        tensor("output", [size], position=0),
        tensor("arena", [size], offset=["mul", 64, "n"]),
        tensor("input", ["n"], position=1),
    ]
    ops = [
        launch("k_neg", size, [0, 2], [0], [2]),
        launch("k_neg", size, [2, 1], [2], [1]),
        launch("k_accumulate", size, [0, 1], [0, 1], [1]),
    ]
    symbol = {"name": "n", "input": 1, "axis": 0, "min": 8, "max": 512, "divisor": 8}
    return content(buffers, [segment("s", *ops)], arena=["mul", 72, "n"], symbols=[symbol])


def test_ways_to_call(engine: Engine, x: np.ndarray, threads: int) -> None:
    expected = affine_expected(x)
    for result in (engine(x), engine({"x0": x}), engine(x0=x), engine.run([x]), engine.run({"x0": x})):
        assert list(result) == ["y0"]
        np.testing.assert_array_equal(result["y0"], expected)


def test_signature(engine: Engine) -> None:
    assert [str(i) for i in engine.inputs] == ["x0: f32[1000]"]
    assert [str(o) for o in engine.outputs] == ["y0: f32[1000]"]
    assert engine.kernels["k_add"]["template"] == "hand"
    assert "(x0: f32[1000]) -> (y0: f32[1000])" in repr(engine)
    assert engine.weight_bytes == 4096


def test_results_survive_later_calls(engine: Engine, x: np.ndarray) -> None:
    first = engine(x)["y0"]
    kept = first.copy()
    second = engine(x * 3)["y0"]
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


def test_inputs_are_not_written(engine: Engine, x: np.ndarray) -> None:
    before = x.copy()
    x.flags.writeable = False
    engine(x)
    np.testing.assert_array_equal(x, before)


def test_strided_and_misaligned_inputs_are_copied(engine: Engine, x: np.ndarray) -> None:
    wide = np.zeros((N, 2), np.float32)
    wide[:, 0] = x
    np.testing.assert_array_equal(engine(wide[:, 0])["y0"], affine_expected(x))
    np.testing.assert_array_equal(engine(x[::-1])["y0"], affine_expected(np.ascontiguousarray(x[::-1])))
    raw = np.zeros(4 * N + 1, np.uint8)
    raw[1:] = x.view(np.uint8)
    odd = raw[1:].view(np.float32)
    assert not odd.flags.aligned
    np.testing.assert_array_equal(engine(odd)["y0"], affine_expected(x))


def test_out_is_written_in_place(engine: Engine, x: np.ndarray) -> None:
    out = np.full(N, np.nan, np.float32)
    result = engine.run({"x0": x}, out={"y0": out})
    assert result["y0"] is out
    np.testing.assert_array_equal(out, affine_expected(x))


def test_out_must_fit(engine: Engine, x: np.ndarray) -> None:
    def out(array: Any, name: str = "y0") -> None:
        engine.run([x], out={name: array})

    with pytest.raises(InputError, match="the output 'y0' has the shape 999 and the engine writes 1000"):
        out(np.empty(999, np.float32))
    with pytest.raises(InputError, match="the output 'y0' is f64 and the engine writes f32"):
        out(np.empty(N))
    with pytest.raises(InputError, match="not contiguous"):
        out(np.empty((N, 2), np.float32)[:, 0])
    frozen = np.empty(N, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(InputError, match="read-only"):
        out(frozen)
    with pytest.raises(InputError, match="no output 'z'; its outputs are y0: f32"):
        out(np.empty(N, np.float32), "z")
    with pytest.raises(InputError, match="overlaps the input 'x0'"):
        out(x)
    both = np.empty(N + 1, np.float32)
    with pytest.raises(InputError, match="overlaps the input 'x0'"):
        engine.run([both[1:]], out={"y0": both[:-1]})


def test_bind_is_copy_free(engine: Engine, x: np.ndarray, threads: int) -> None:
    out = np.empty(N, np.float32)
    bound = engine.bind({"x0": x}, {"y0": out})
    for scale in (1, 2, 3):
        x[:] = np.arange(N) * scale
        result = bound()
        assert result["y0"] is out
        np.testing.assert_array_equal(out, affine_expected(x))
    own = engine.bind([x])
    assert own() is own()
    assert own()["y0"] is own.outputs["y0"]
    np.testing.assert_array_equal(own()["y0"], out)


def test_bind_refuses_what_it_would_copy(engine: Engine) -> None:
    with pytest.raises(InputError, match="'x0' is not contiguous and cannot be bound"):
        engine.bind([np.zeros((N, 2), np.float32)[:, 0]])


def test_bound_calls_keep_apart(engine: Engine, x: np.ndarray) -> None:
    a, b = engine.bind([x]), engine.bind([x * 2])
    np.testing.assert_array_equal(a()["y0"], affine_expected(x))
    kept = a.outputs["y0"].copy()
    b()
    np.testing.assert_array_equal(a.outputs["y0"], kept)


class _OnlyDlpack:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_dlpack_in(engine: Engine, x: np.ndarray) -> None:
    np.testing.assert_array_equal(engine(_OnlyDlpack(x))["y0"], affine_expected(x))
    bound = engine.bind([_OnlyDlpack(x)])
    x[:] = 1
    np.testing.assert_array_equal(bound()["y0"], affine_expected(x))


def test_device_memory_is_refused(engine: Engine) -> None:
    class OnGpu:
        __cuda_array_interface__ = {"data": (0, False), "shape": (N,), "typestr": "<f4", "version": 3}

    class OtherDevice(_OnlyDlpack):
        def __dlpack_device__(self) -> Any:
            return (2, 0)

    with pytest.raises(InputError, match=r"'x0' .* is on a GPU and the engine runs on the CPU"):
        engine(OnGpu())
    with pytest.raises(InputError, match=r"'x0' .* is not in host memory"):
        engine(OtherDevice(np.zeros(N, np.float32)))


def test_wrong_inputs_name_both_sides(engine: Engine, x: np.ndarray) -> None:
    cases: list[tuple[Any, str]] = [
        ({"x0": x.astype(np.float64)}, "the input 'x0' is f64 and the engine takes f32"),
        ({"x0": x.astype(ml_dtypes.bfloat16)}, "is bf16 and the engine takes f32"),
        ({"x0": x.astype(">f4")}, "is >f4 and the engine takes f32"),
        ({"x0": x.reshape(10, 100)}, "the input 'x0' has the shape 10x100 and the engine takes 1000"),
        ({"x0": np.float32(1)}, "has the shape scalar and the engine takes 1000"),
        ({"x0": [1.0] * N}, "the value of 'x0' is a list; give a numpy array"),
        ({"x0": x, "x1": x}, "no input 'x1'; its inputs are x0: f32"),
        ({}, "the input x0: f32.1000. is missing"),
        ([x, x], "2 inputs are given and the engine takes 1"),
        (7, "the inputs are a int"),
    ]
    for given, message in cases:
        with pytest.raises(InputError, match=message):
            engine.run(given)
    with pytest.raises(InputError, match="in order or by name, not both"):
        engine(x, x0=x)


def test_two_threads_in_one_engine(engine: Engine, threads: int) -> None:
    failures: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(100):
            x = rng.standard_normal(N, dtype=np.float32)
            if not np.array_equal(engine(x)["y0"], affine_expected(x)):
                failures.append(f"thread {seed}")

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_symbols(threads: int) -> None:
    engine = load(to_bytes(symbolic()))
    bound = engine.bind([np.ones(16, np.float32), np.zeros(8, np.float32)])
    for n in (8, 512, 16, 256):
        x = np.arange(2 * n, dtype=np.float32)
        np.testing.assert_array_equal(engine(x, np.zeros(n, np.float32))["y0"], x + x)
    np.testing.assert_array_equal(bound()["y0"], np.full(16, 2, np.float32))
    assert str(engine.inputs[0]) == "x0: f32[(2 * n)]"
    for n, message in ((520, "from 8 to 512 and a multiple of 8"), (0, "is 0"), (12, "is 12 and the engine takes")):
        with pytest.raises(InputError, match=message):
            engine(np.zeros(2 * n, np.float32), np.zeros(n, np.float32))
    with pytest.raises(InputError, match=r"'x0' has the shape 17 and the engine takes \(2 \* n\) with n = 8"):
        engine(np.zeros(17, np.float32), np.zeros(8, np.float32))


def test_a_shape_of_another_engine(x: np.ndarray) -> None:
    with pytest.raises(InputError, match="compile one for this shape"):
        load(to_bytes(affine(N)))(x[:10])


def test_passed_through_outputs(x: np.ndarray) -> None:
    """Outputs that are an input, a weight or part of another output are copied to the caller."""
    weight = np.arange(8, dtype=np.float32)
    buffers = [
        tensor("input", [8], position=0),
        tensor("output", [8], position=0),
        tensor("weight", [8], name="w0"),
        tensor("view", [4], of=1, offset=16),
    ]
    outputs = [
        {"name": name, "dtype": "f32", "shape": buffers[i]["shape"], "buffer": i}
        for name, i in (("y0", 1), ("same", 0), ("w", 2), ("half", 3))
    ]
    schedule = [segment("s", launch("k_neg", 8, [0, 1], [0], [1]))]
    engine = load(to_bytes(content(buffers, schedule, weights=(weight,), outputs=outputs)))
    v = x[:8].copy()
    given = np.empty(4, np.float32)
    result = engine.run([v], out={"half": given})
    np.testing.assert_array_equal(result["y0"], -v)
    np.testing.assert_array_equal(result["same"], v)
    np.testing.assert_array_equal(result["w"], weight)
    np.testing.assert_array_equal(given, -v[4:])
    assert result["half"] is given
    result["w"][:] = 0
    result["same"][:] = 0
    np.testing.assert_array_equal(engine(v)["w"], weight)
    bound = engine.bind([v], {"half": given})
    given[:] = 0
    assert bound()["half"] is given
    np.testing.assert_array_equal(given, -v[4:])
    np.testing.assert_array_equal(bound()["same"], v)


def test_profile(engine: Engine, x: np.ndarray, threads: int) -> None:
    rows = engine.profile({"x0": x})
    assert [(r.name, r.op, r.loc, r.segment) for r in rows] == [
        (k, "launch", (f"node_{k}",), "segment_0") for k in ("k_affine", "k_reverse", "k_add")
    ]
    assert all(0 < r.seconds < 1 for r in rows)
    np.testing.assert_array_equal(engine(x)["y0"], affine_expected(x))


def test_save_and_load(engine: Engine, x: np.ndarray, tmp_path: Path) -> None:
    engine.save(tmp_path / "a.tcc")
    again = load(tmp_path / "a.tcc")
    np.testing.assert_array_equal(again(x)["y0"], affine_expected(x))
    write(affine(N), tmp_path / "b.tcc")
    assert (tmp_path / "a.tcc").read_bytes() == (tmp_path / "b.tcc").read_bytes()


def test_close_frees_contexts(engine: Engine, x: np.ndarray) -> None:
    engine(x)
    engine.close()
    np.testing.assert_array_equal(engine(x)["y0"], affine_expected(x))


def test_foreign_engines_are_refused() -> None:
    def changed(**target: Any) -> EngineContent:
        engine = affine(16)
        engine.target = {**engine.target, **target}
        return engine

    with pytest.raises(FailureError, match="needs the CPU features amx-quantum, sse9, which this CPU lacks"):
        load(to_bytes(changed(features=["sse2", "sse9", "amx-quantum"])))
    with pytest.raises(FailureError, match="is for riscv64-unknown-linux-gnu and this machine is"):
        load(to_bytes(changed(triple="riscv64-unknown-linux-gnu")))
    with pytest.raises(FailureError, match="is for x86_64-pc-windows-msvc and this machine is"):
        load(to_bytes(changed(triple="x86_64-pc-windows-msvc")))
    with pytest.raises(FailureError, match="a device of the kind 'abacus'"):
        load(to_bytes(changed(kind="abacus")))
    missing = affine(16)
    missing.native = None
    with pytest.raises(FailureError, match="has no native code"):
        load(to_bytes(missing))
    with pytest.raises(FailureError, match="cannot be linked here"):
        broken = affine(16)
        broken.kernels = {k: v for k, v in broken.kernels.items() if k != "k_add"}
        broken.schedule = [segment("segment_0")]
        load(to_bytes(broken))
