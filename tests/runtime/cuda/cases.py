# SPDX-License-Identifier: Apache-2.0
"""What any CUDA engine must do, run on the fake driver here and on a GPU in tests/device.

The fixture `program` makes an `engines.Program`.
"""

import threading

import numpy as np
import pytest

from tcc.errors import FailureError, InputError
from tcc.runtime.cuda.array import DeviceArray

N = 1000


def ramp(n=N, start=0.0):
    return (np.arange(n) + start).astype(np.float32)


def affine(program, n=N, pdl=False):
    """y = 3 (x + w), with w = 0, 2, 4, ..."""
    p = program()
    x, w, t, y = p.input("x", [n]), p.weight(ramp(n) * 2), p.temp([n]), p.output("y", [n])
    p.segment(p.add(t, x, w, n), p.scale(y, t, 3, n, pdl=pdl))
    return p.engine()


def expected(x):
    return 3 * (x + 2 * ramp(len(x)))


def on_device(engine, array):
    """A device copy of an array, through the executor."""
    value = engine.executor.empty("f32", array.shape, [engine.executor.accept(array, "x")])
    assert isinstance(value.owner, np.ndarray)
    with engine.executor.gpu.active():
        made = DeviceArray(engine.executor.gpu, "f32", array.shape, engine.executor.gpu.stream())
        context = engine.executor.context()
        context.stream = made.stream
        context.write(made.pointer, array.tobytes())
    return made


@pytest.mark.parametrize("pdl", [False, True])
def test_weights_inputs_and_fresh_outputs(program, pdl):
    engine = affine(program, pdl=pdl)
    first = engine({"x": ramp()})["y"]
    second = engine(ramp(start=5))["y"]
    assert isinstance(first, np.ndarray)
    np.testing.assert_array_equal(first, expected(ramp()))
    np.testing.assert_array_equal(second, expected(ramp(start=5)))
    assert not np.shares_memory(first, second)


def test_strided_and_big_host_inputs(program):
    engine = affine(program)
    np.testing.assert_array_equal(engine(ramp(2 * N)[::2])["y"], expected(ramp(2 * N)[::2]))
    n = 9 << 20  # 36 MiB: above what is staged through pinned memory
    big = affine(program, n)
    np.testing.assert_array_equal(big(ramp(n))["y"], expected(ramp(n)))


def test_out_is_written_in_place(program):
    engine = affine(program)
    out = np.zeros(N, np.float32)
    result = engine.run({"x": ramp()}, out={"y": out})
    assert result["y"] is out
    np.testing.assert_array_equal(out, expected(ramp()))


def test_device_arrays_in_and_out(program):
    engine = affine(program)
    first = engine(on_device(engine, ramp()))["y"]
    second = engine(first)["y"]
    assert isinstance(first, DeviceArray)
    np.testing.assert_array_equal(first.numpy(), expected(ramp()))
    np.testing.assert_array_equal(np.asarray(second), expected(expected(ramp())))
    assert first.shape == (N,)
    assert first.__cuda_array_interface__["data"] == (first.pointer, False)


def test_a_chain_of_device_calls_without_waiting(program):
    engine = affine(program)
    value, want = on_device(engine, ramp()), ramp().astype(np.float64)
    for _ in range(6):
        value = engine(value)["y"]
        want = 3 * (want.astype(np.float32) + 2 * ramp())
    np.testing.assert_array_equal(value.numpy(), want)


def test_host_inputs_of_later_calls_do_not_overtake(program):
    """Calls that end before the device does must not overwrite what it still reads."""
    p = program()
    x, z, y = p.input("x", [N]), p.input("z", [N]), p.output("y", [N])
    p.segment(p.add(y, x, z, N))
    engine = p.engine()
    anchor = on_device(engine, ramp())
    results = [engine({"x": ramp(start=i), "z": anchor})["y"] for i in range(5)]
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result.numpy(), ramp(start=i) + ramp())


def test_bind_host_and_device(program):
    engine = affine(program)
    x, y = ramp(), np.zeros(N, np.float32)
    call = engine.bind({"x": x}, {"y": y})
    for start in (0, 7):
        x[:] = ramp(start=start)
        assert call()["y"] is y
        np.testing.assert_array_equal(y, expected(x))
    source = on_device(engine, ramp())
    bound = engine.bind({"x": source})
    np.testing.assert_array_equal(bound()["y"].numpy(), expected(ramp()))
    assert bound()["y"] is bound.outputs["y"]


def test_a_bound_call_follows_its_inputs(program):
    """Bound calls in a row: each reads what the one before wrote."""
    engine = affine(program)
    a, b = on_device(engine, ramp()), on_device(engine, np.zeros(N, np.float32))
    there, back = engine.bind({"x": a}, {"y": b}), engine.bind({"x": b}, {"y": a})
    for call in (there, back, there):
        call()
    want = ramp()
    for _ in range(3):
        want = 3 * (want + 2 * ramp())
    np.testing.assert_array_equal(b.numpy(), want)


def test_poison_shows_what_is_not_written(program):
    p = program()
    x, t, y, z = p.input("x", [N]), p.temp([N]), p.output("y", [N]), p.output("z", [N])
    p.segment(p.scale(y, x, 2, N), p.scale(z, t, 1, 10))
    engine = p.engine()
    engine.executor.poison = 0xFF
    for inputs in ([ramp()], [on_device(engine, ramp())]):
        result = {name: np.asarray(value) for name, value in engine.run(inputs).items()}
        np.testing.assert_array_equal(result["y"], 2 * ramp())
        assert np.isnan(result["z"]).all()
    clean = affine(program)
    clean.executor.poison = 0xFF
    np.testing.assert_array_equal(clean(ramp())["y"], expected(ramp()))


def test_an_unaligned_device_input_is_copied(program):
    engine = affine(program, n=100)
    whole = on_device(engine, ramp(200))

    class Tail:
        __cuda_array_interface__ = {
            **whole.__cuda_array_interface__,
            "shape": (100,),
            "data": (whole.pointer + 4, False),
        }

    result = engine(Tail())["y"]
    np.testing.assert_array_equal(result.numpy(), expected(ramp(101)[1:]))


def test_strided_device_inputs(program):
    p = program()
    x, y = p.input("x", [4, 3, 5]), p.output("y", [4, 3, 5])
    p.segment(p.scale(y, x, 2, 60))
    engine = p.engine()
    base = ramp(400).reshape(4, 10, 10)
    whole = on_device(engine, base)
    for view in (base[:, 1:4, 2:7], base[:, ::-1, :][:, :3, :5], base[:, :3, ::2], base[:, :5, :3].transpose(0, 2, 1)):
        start = whole.pointer + view.__array_interface__["data"][0] - base.__array_interface__["data"][0]

        class View:
            __cuda_array_interface__ = {
                **whole.__cuda_array_interface__, "shape": view.shape, "strides": view.strides, "data": (start, False),
            }  # fmt: skip

        np.testing.assert_array_equal(engine(View())["y"].numpy(), view * 2)


def branching(program):
    p = program()
    x, y = p.input("x", [N]), p.output("y", [N])
    flag, t = p.temp([1], "bool"), p.temp([N])
    low, high = p.weight(ramp()), p.weight(-ramp())
    p.segment(p.launch("below", flag, x, 0.0, reads=[x], writes=[flag]), p.scale(t, x, 10, N))
    then, other = [], []
    p.segment(p.add(y, t, low, N), into=then)
    p.segment(p.add(y, t, high, N), p.bump(y, 1, N), into=other)
    p.content.schedule.append({"op": "if", "cond": flag, "then": then, "else": other})
    return p.engine()


def test_if_takes_the_right_branch(program):
    engine = branching(program)
    for _ in range(2):
        np.testing.assert_array_equal(engine(ramp(start=1))["y"], 10 * ramp(start=1) - ramp() + 1)
        np.testing.assert_array_equal(engine(ramp(start=-1))["y"], 10 * ramp(start=-1) + ramp())


def test_loop_carries_scans_and_counts(program):
    """x grows by 1.5 while it is below 10, at most 20 times; the sum of the scanned values' first elements is known."""
    p = program()
    x = p.input("x", [4])
    var, nxt, flag, flag2 = p.temp([4]), p.temp([4]), p.temp([1], "bool"), p.temp([1], "bool")
    scanned = p.buffer("pool", ["steps", 4])
    p.content.symbols.append({"name": "steps", "input": None, "axis": 0, "min": 0, "max": None, "divisor": 1})
    p.output("ys", ["steps", 4], buffer=scanned)
    copy = {"op": "copy", "src": {"buffer": x}, "dst": {"buffer": var}, "bytes": 16}
    p.segment(copy, p.launch("below", flag, var, 10.0, reads=[var], writes=[flag]))
    body = []
    p.segment(
        {"op": "copy", "src": {"buffer": var}, "dst": {"buffer": nxt}, "bytes": 16},
        p.bump(nxt, 1.5, 4),
        p.launch("below", flag2, nxt, 10.0, reads=[nxt], writes=[flag2]),
        into=body,
    )
    p.content.schedule.append(
        {"op": "loop", "trip": None, "trip_expr": 20, "cond": flag, "iteration": None, "count": "steps", "body": body,
         "carried": [{"next": nxt, "var": var}, {"next": flag2, "var": flag}], "scan": [{"from": nxt, "to": scanned}]}
    )  # fmt: skip
    engine = p.engine()
    for start in (0.0, 5.0, 100.0):
        values, v = [], ramp(4, start)
        while v[0] < 10 and len(values) < 20:
            v = v + np.float32(1.5)
            values.append(v)
        want = np.array(values, np.float32).reshape(-1, 4)
        np.testing.assert_array_equal(engine(ramp(4, start))["ys"], want)


def test_loop_whose_body_carries_what_it_makes(program):
    """x grows by 1.5 twenty times; every value is written to its row of an output, and the body ends in the copy."""
    p = program()
    x, var, nxt, last = p.input("x", [4]), p.temp([4]), p.temp([4]), p.temp([1], "i64")
    rows = p.output("rows", [20, 4])
    p.output("last", [1], "i64", buffer=last)
    p.segment({"op": "copy", "src": {"buffer": x}, "dst": {"buffer": var}, "bytes": 16})
    body = []
    p.segment(
        {"op": "copy", "src": {"buffer": var}, "dst": {"buffer": nxt}, "bytes": 16},
        p.bump(nxt, 1.5, 4),
        {"op": "copy", "src": {"buffer": nxt}, "dst": {"buffer": var}, "bytes": 16},
        into=body,
    )
    p.content.schedule.append(
        {"op": "loop", "trip": None, "trip_expr": 20, "cond": None, "iteration": last, "count": None, "body": body,
         "carried": [], "scan": [{"from": nxt, "to": rows}]}
    )  # fmt: skip
    engine = p.engine()
    for start in (0.0, 5.0):
        got = engine(ramp(4, start))
        np.testing.assert_array_equal(got["rows"], ramp(4, start) + 1.5 * np.arange(1, 21, dtype=np.float32)[:, None])
        assert got["last"] == [19]


def test_loop_whose_variable_grows(program):
    """A row of ones more in every iteration, twice what was there before it: the memory of both changes places."""
    p = program()
    x, count = p.input("x", [2]), p.input("count", [], "i64")
    var, nxt = p.buffer("pool", ["l"]), p.buffer("pool", [["add", "l", 1]])
    for name in ("l", "after"):
        p.content.symbols.append({"name": name, "input": None, "axis": 0, "min": 0, "max": None, "divisor": 1})
    p.output("y", ["after"], buffer=p.buffer("view", ["after"], of=var, offset=0))
    p.content.schedule += [{"op": "let", "symbol": "l", "value": 2}, {"op": "alloc", "buffer": var}]
    p.segment({"op": "copy", "src": {"buffer": x}, "dst": {"buffer": var}, "bytes": 8})
    body = [{"op": "alloc", "buffer": nxt}]
    end = {"buffer": nxt, "offset": ["mul", 4, "l"]}
    p.segment(
        p.scale(nxt, var, 2, "l"),
        {"op": "memset", "dst": end, "bytes": 4, "value": 0},
        p.launch("bump", end, 1.0, reads=[nxt], writes=[nxt], n=1),
        into=body,
    )
    p.content.schedule += [
        {"op": "loop", "trip": {"buffer": count}, "trip_expr": None, "cond": None, "iteration": None, "count": None,
         "body": body, "carried": [{"next": nxt, "var": var, "swap": True}],
         "extents": [{"symbol": "l", "next": ["add", "l", 1]}], "scan": []},
        {"op": "let", "symbol": "after", "value": "l"},
    ]  # fmt: skip
    engine = p.engine()
    for trips in (0, 1, 3, 60, 7):
        want = np.concatenate([np.float32([3, 5]) * 2.0**trips, 2.0 ** np.arange(trips - 1, -1, -1)])
        np.testing.assert_array_equal(engine(np.float32([3, 5]), np.array(trips))["y"], want.astype(np.float32))


def test_sizes_that_data_decides(program):
    p = program()
    x, n = p.input("x", [N]), p.temp([1], "i64")
    kept = p.buffer("pool", ["k"])
    p.content.symbols.append({"name": "k", "input": None, "axis": 0, "min": 0, "max": None, "divisor": 1})
    p.output("kept", ["k"], buffer=kept)
    p.segment(p.launch("count", n, x, reads=[x], writes=[n], n=N, grid=[1, 1, 1]))
    p.content.schedule.append({"op": "let", "symbol": "k", "src": {"buffer": n}, "dtype": "i64"})
    p.content.schedule.append({"op": "alloc", "buffer": kept})
    p.segment(p.launch("compact", kept, x, reads=[x], writes=[kept], n=N, grid=[1, 1, 1]), p.bump(kept, 1, "k"))
    engine = p.engine()
    rng = np.random.default_rng(0)
    for count in (3, 500, 0, 3, N):
        values = np.full(N, -1, np.float32)
        values[rng.choice(N, count, replace=False)] = rng.uniform(1, 2, count)
        np.testing.assert_array_equal(engine(values)["kept"], values[values > 0] + 1)
        out = np.zeros(count, np.float32)
        engine.run([values], out={"kept": out})
        np.testing.assert_array_equal(out, values[values > 0] + 1)
    device = engine(on_device(engine, values))["kept"]
    np.testing.assert_array_equal(device.numpy(), values + 1)
    with pytest.raises(InputError, match="shape"):
        engine.run([values], out={"kept": np.zeros(3, np.float32)})


def test_host_calls_between_segments(program):
    p = program()
    x, y = p.input("x", [N]), p.output("y", [N])
    t, u = p.temp([N]), p.temp([N])
    p.segment(p.bump(t, 0, 1), p.scale(t, x, -1, N))
    p.content.schedule.append(
        {"op": "host_call", "function": "relu", "inputs": [t], "outputs": [u], "attrs": {}, "loc": ["R"]}
    )
    p.segment(p.bump(u, 1, N), p.scale(y, u, 2, N))
    engine = p.engine()
    np.testing.assert_array_equal(engine(ramp(start=-500))["y"], 2 * (np.maximum(-ramp(start=-500), 0) + 1))


def test_values_on_the_host(program):
    p = program()
    words = {"dtype": "str", "shape": [2]}
    p.content.buffers += [{"space": "host", **words}, {"space": "host", "strings": ["!", "?"], **words}]
    p.content.inputs.append({"name": "words", "buffer": 0, **words})
    x, y, t = p.input("x", [N]), p.output("y", [N]), p.temp([N])
    sequence = {"sequence": {"dtype": "f32", "shape": None}}
    p.content.buffers += [{"space": "host", **words}, {"space": "host", **sequence}]
    calls = (("string_concat", [0, 1], 5), ("sequence_construct", [t, x], 6))
    p.segment(p.scale(t, x, 2, N))
    for function, ins, out in calls:
        p.content.schedule.append(
            {"op": "host_call", "function": function, "inputs": ins, "outputs": [out], "attrs": {}, "loc": ["H"]}
        )
    p.segment(p.add(y, t, x, N))
    p.content.outputs += [{"name": "both", "buffer": 5, **words}, {"name": "seq", "buffer": 6, **sequence}]
    engine = p.engine()
    for _ in range(2):
        got = engine({"words": ["a", "b"], "x": ramp()})
        assert got["both"].tolist() == ["a!", "b?"]
        np.testing.assert_array_equal(got["y"], 3 * ramp())
        np.testing.assert_array_equal(got["seq"], [2 * ramp(), ramp()])


def test_symbolic_extents(program):
    p = program()
    x, y = p.input("x", ["n"]), p.output("y", ["n"])
    p.content.symbols.append({"name": "n", "input": 0, "axis": 0, "min": 1, "max": None, "divisor": 1})
    t = p.temp(["n"], offset=0)
    u = p.temp(["n"], offset=["mul", 256, ["ceildiv", "n", 64]])
    p.content.arena = {"bytes": ["mul", 512, ["ceildiv", "n", 64]], "align": 256}
    p.segment(p.scale(t, x, 2, "n"), p.scale(u, x, 3, "n"), p.add(y, t, u, "n"))
    engine = p.engine()
    for n in (5, 1000, 64, 5, 129, 1000, *range(1, 40)):
        np.testing.assert_array_equal(engine(ramp(n))["y"], 5 * ramp(n))


def random_program(program, seed, pdl):
    """Random launches, copies and memsets over an arena whose buffers overlap, and what they compute in numpy."""
    rng = np.random.default_rng(seed)
    p = program()
    n = 192
    x, y = p.input("x", [n]), p.output("y", [n])
    slots = 10
    temps = [p.temp([n], offset=256 * int(rng.integers(0, 12))) for _ in range(slots)]
    views = [p.buffer("view", [64], of=t, offset=256 * int(rng.integers(0, 3))) for t in temps[:4]]
    p.content.arena = {"bytes": 256 * 16, "align": 256}
    memory = {"arena": np.zeros(1024, np.float32)}

    def place(buffer):
        entry = p.content.buffers[buffer]
        start, size = 0, entry["bytes"] // 4
        if entry["space"] == "view":
            start = entry["offset"] // 4
            entry = p.content.buffers[entry["of"]]
        if entry["space"] == "arena":
            return memory["arena"][start + entry["offset"] // 4 :][:size]
        return memory[entry["space"]][:size]

    def disjoint(a, b):
        return not np.shares_memory(place(a), place(b))

    memory["input"], memory["output"] = np.zeros(n, np.float32), np.zeros(n, np.float32)
    ops, steps = [{"op": "memset", "dst": {"buffer": t}, "bytes": n * 4, "value": 0} for t in temps], []
    for _ in range(60):
        size = n if rng.random() < 0.6 else 64
        pool = [*temps, x] if size == n else [*views, x, *temps]
        a, b = (pool[int(rng.integers(len(pool)))] for _ in range(2))
        targets = [*temps, y] if size == n else [*views, *temps, y]
        out = targets[int(rng.integers(len(targets)))]
        kind = rng.choice(["add", "scale", "bump", "copy"])
        extra = {"pdl": bool(pdl and rng.random() < 0.8)}
        if kind == "bump":
            ops.append(p.bump(out, 0.5, size, **extra))
            steps.append(lambda out=out, size=size: np.add(place(out)[:size], 0.5, out=place(out)[:size]))
        elif not disjoint(out, a) or not disjoint(out, b):
            continue
        elif kind == "add":
            ops.append(p.add(out, a, b, size, **extra))
            steps.append(
                lambda out=out, a=a, b=b, size=size: np.add(place(a)[:size], place(b)[:size], out=place(out)[:size])
            )
        elif kind == "scale":
            ops.append(p.scale(out, a, 0.75, size, **extra))
            steps.append(
                lambda out=out, a=a, size=size: np.multiply(place(a)[:size], np.float32(0.75), out=place(out)[:size])
            )
        else:
            ops.append({"op": "copy", "src": {"buffer": a}, "dst": {"buffer": out}, "bytes": size * 4})
            steps.append(lambda out=out, a=a, size=size: np.copyto(place(out)[:size], place(a)[:size]))
    ops.append(p.add(y, temps[0], temps[1], n))
    steps.append(lambda: np.add(place(temps[0]), place(temps[1]), out=place(y)))
    p.segment(*ops)

    def reference(value):
        for array in memory.values():
            array[:] = 0
        memory["input"][:] = value
        for step in steps:
            step()
        return memory["output"].copy()

    return p.engine(), reference


@pytest.mark.parametrize("pdl", [False, True])
def test_overlapping_ops_compute_what_their_order_does(program, pdl):
    for seed in range(12):
        engine, reference = random_program(program, seed, pdl)
        for start in (0, 3):
            value = ramp(192, start) / 64
            np.testing.assert_array_equal(engine(value)["y"], reference(value), err_msg=f"seed {seed}")


def test_two_threads_call_one_engine(program):
    engine = affine(program)
    failures = []

    def work(seed):
        for i in range(20):
            x = ramp(start=100 * seed + i)
            if not np.array_equal(engine(x)["y"], expected(x)):
                failures.append((seed, i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_array_made_by_one_thread_is_used_by_another(program):
    engine = affine(program)
    made = []
    thread = threading.Thread(target=lambda: made.append(engine(on_device(engine, ramp()))["y"]))
    thread.start()
    thread.join()
    result = engine(made.pop())["y"]
    np.testing.assert_array_equal(result.numpy(), expected(expected(ramp())))


def test_profile_names_every_op(program):
    engine = branching(program)
    rows = engine.profile({"x": ramp(start=1)})
    assert [row.name for row in rows] == ["below", "scale", "add", "bump"]
    assert all(row.seconds >= 0 for row in rows)
    assert sum(row.seconds for row in rows) > 0
    assert rows[0].loc == ("below_node",)
    np.testing.assert_array_equal(engine(ramp(start=-1))["y"], 10 * ramp(start=-1) + ramp())


def test_engines_for_other_gpus_are_refused(program):
    p = program(arch="sm_75")
    p.output("y", [1], buffer=p.input("x", [1]))
    with pytest.raises(FailureError, match=r"built for sm_75 and the GPU here is .*--target sm_90"):
        p.engine()


def test_what_does_not_fit_is_refused(program):
    def one(**more):
        p = program()
        x, y = p.input("x", [N]), p.output("y", [N])
        p.segment(p.scale(y, x, 2, N, **more))
        return p.engine()

    with pytest.raises(FailureError, match=r"kernel scale needs 300,000 bytes of shared memory a block and .* has"):
        one(shared=300_000)(ramp())
    with pytest.raises(FailureError, match="2048 threads a block and can have 1024"):
        one(block=[2048, 1, 1])(ramp())
    with pytest.raises(FailureError, match=r"kernel scale takes parameters of \[8, 8, 4, 4\] bytes and gets \[8, 8\]"):
        one(params=[{"buffer": 0}, {"buffer": 1}])(ramp())
    np.testing.assert_array_equal(one(shared=100_000)(ramp())["y"], 2 * ramp())


def test_a_missing_entry_is_refused(program):
    p = program()
    p.content.kernels["scale"]["entry"] = "nowhere"
    p.output("y", [1], buffer=p.input("x", [1]))
    with pytest.raises(FailureError, match=r"kernels/all.cubin holds no kernel 'nowhere'"):
        p.engine()


def test_out_of_memory_names_the_sizes(program):
    p = program()
    x, y = p.input("x", [1]), p.output("y", [1])
    p.content.arena = {"bytes": 1 << 40, "align": 256}
    p.segment(p.scale(y, x, 2, 1))
    with pytest.raises(FailureError, match=r"out of GPU memory: 1,099,511,627,776 bytes for the engine's arena do not"):
        p.engine()(ramp(1))


def test_inputs_that_are_no_tensors_are_refused(program):
    engine = affine(program)
    with pytest.raises(InputError, match="'x' is not a tensor of numbers"):
        engine(np.array(["a"] * N))
    with pytest.raises(InputError, match="f64 and the engine takes f32"):
        engine(ramp().astype(np.float64))
    with pytest.raises(InputError, match="cannot be written in place"):
        engine.run([ramp()], out={"y": np.zeros(2 * N, np.float32)[::2]})
    with pytest.raises(InputError, match="is a str"):
        engine.run([ramp()], out={"y": "text"})


def test_contexts_are_freed(program):
    engine = affine(program)
    engine(ramp())
    engine.close()
    np.testing.assert_array_equal(engine(ramp())["y"], expected(ramp()))
