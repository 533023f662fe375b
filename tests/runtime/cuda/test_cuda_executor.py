# SPDX-License-Identifier: Apache-2.0
"""The CUDA executor's logic on the fake driver: the shared cases, and what only the fake can see."""

import gc
import sys
import threading
import types

import ml_dtypes
import numpy as np
import pytest

from tcc.errors import FailureError
from tcc.runtime import load
from tcc.runtime.cuda import device, dlpack, driver
from tcc.runtime.cuda.array import DeviceArray
from tests.runtime.cuda import cases
from tests.runtime.cuda.cases import *  # noqa: F403
from tests.runtime.cuda.cases import N, affine, expected, on_device, ramp
from tests.runtime.cuda.fake_driver import real, view


def in_thread(work):
    """The result of `work` on a thread of its own, whose stream is another than this thread's."""
    gpu = device.current_gpu()
    with gpu.active():
        mine = gpu.stream()
    made = []
    thread = threading.Thread(target=lambda: made.append(work()))
    thread.start()
    thread.join()
    if isinstance(made[0], DeviceArray):
        assert made[0].stream != mine
    return made.pop()


def test_one_copy_each_way_and_no_rebinding(fake, program):
    p = program()
    a, b, y = p.input("a", [N]), p.input("b", [N]), p.output("y", [N])
    p.output("z", [N])
    p.segment(p.add(y, a, b, N), p.scale(p.content.outputs[1]["buffer"], a, 2, N))
    engine = p.engine()
    engine(ramp(), ramp())
    fake.log.clear()
    engine(ramp(), ramp())
    assert [row[0] for row in fake.log] == ["to device", "graph", "to host", "synchronize"]
    assert fake.log[0] == ("to device", 2 * 4096, True)
    assert (fake.instantiated, fake.updates) == (1, 0)


def test_only_nodes_that_name_a_changed_pointer_are_updated(fake, program):
    p = program()
    x, t, u, y = p.input("x", [N]), p.temp([N]), p.temp([N]), p.output("y", [N])
    p.segment(p.scale(t, x, 2, N), p.scale(u, t, 2, N), p.scale(t, u, 2, N), p.scale(y, t, 2, N))
    engine = p.engine()
    source = on_device(engine, ramp())
    first = engine(source)["y"]
    assert fake.updates == 0
    second = engine(source)["y"]  # a fresh output: one node writes it
    assert fake.updates == 1
    assert first.pointer != second.pointer
    bound = engine.bind({"x": source})
    bound()
    before = fake.updates
    bound()
    bound()
    assert fake.updates == before
    np.testing.assert_array_equal(second.numpy(), 16 * ramp())


def test_a_bound_device_call_enqueues_one_graph_and_waits_for_nothing(fake, program):
    engine = affine(program)
    call = engine.bind({"x": on_device(engine, ramp())})
    call()
    fake.log.clear()
    call()
    assert [row[0] for row in fake.log] == ["graph"]


def test_edges_are_the_dependences_and_programmatic_where_marked(fake, program):
    p = program()
    x, y = p.input("x", [N]), p.output("y", [N])
    t, u, v = p.temp([N]), p.temp([N]), p.temp([N])
    p.segment(
        p.scale(t, x, 2, N, pdl=True),  # 0
        p.scale(u, t, 2, N, pdl=True),  # 1: after 0, early
        p.scale(v, t, 3, N),  # 2: after 0
        p.add(y, u, v, N, pdl=True),  # 3: after 1 and 2, so not early
        p.bump(y, 1, N, pdl=True),  # 4: after 3, early
        {"op": "memset", "dst": {"buffer": t}, "bytes": N * 4, "value": 0},  # 5: 1 and 2 have read t
        p.bump(t, 1, N, pdl=True),  # 6: after a memset, so not early
        p.add(u, t, y, N, pdl=True),  # 7: after 4 and 6
    )
    engine = p.engine()
    np.testing.assert_array_equal(engine(ramp())["y"], 10 * ramp() + 1)
    nodes = fake.nodes()
    assert [node.after for node in nodes] == [[], [0], [0], [1, 2], [3], [1, 2], [5], [4, 6]]
    early = [[edge[0] == 1 and edge[1] == 1 for edge in node.edges] for node in nodes]
    assert early == [[], [True], [False], [False, False], [True], [False, False], [False], [False, False]]


@pytest.mark.parametrize("fake", [{"capability": (8, 6)}], indirect=True)
def test_no_programmatic_edges_before_sm_90(fake, program):
    p = program(arch="sm_80")
    x, t, y = p.input("x", [N]), p.temp([N]), p.output("y", [N])
    p.segment(p.scale(t, x, 2, N, pdl=True), p.scale(y, t, 2, N, pdl=True))
    engine = p.engine()
    np.testing.assert_array_equal(engine(ramp())["y"], 4 * ramp())
    assert [node.edges for node in fake.nodes()] == [[], [(0, 0)]]


def test_serial_order_on_request(fake, program, monkeypatch):
    monkeypatch.setenv("TCC_CUDA_SERIAL", "1")
    p = program()
    x, y, z = p.input("x", [N]), p.output("y", [N]), p.output("z", [N])
    p.segment(p.scale(y, x, 2, N), p.scale(z, x, 3, N))
    engine = p.engine()
    engine(ramp())
    assert [node.after for node in fake.nodes()] == [[], [0]]


def test_cluster_cooperative_and_shared_attributes(fake, program):
    p = program()
    x, y = p.input("x", [N]), p.output("y", [N])
    p.segment(p.scale(y, x, 2, N, cluster=[16, 1, 1], cooperative=True, shared=100_000, grid=[16, 1, 1]))
    engine = p.engine()
    engine(ramp())
    (node,) = fake.nodes()
    cluster = node.attributes["CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION"].clusterDim
    assert (cluster.x, cluster.y, cluster.z) == (16, 1, 1)
    assert node.attributes["CU_LAUNCH_ATTRIBUTE_COOPERATIVE"].cooperative == 1
    assert node.facts.limit == {
        "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": 100_000,
        "CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED": 1,
    }
    assert (node.facts.shared, node.facts.grid, node.facts.block) == (100_000, (16, 1, 1), (128, 1, 1))


def test_tensor_maps_follow_their_buffer(fake, program):
    p = program()
    p.content.files["kernels/map.cubin"] = b'{"mapped": [128, 8]}'
    p.kernel("mapped", "kernels/map.cubin")
    x, y = p.input("x", [64, 32]), p.output("y", [64, 32])
    spec = {
        "buffer": x,
        "offset": 32,
        "dtype": "f32",
        "dims": [32, 63],
        "strides": [128],
        "box": [16, 8],
        "swizzle": "64",
    }
    p.segment(p.launch("mapped", {"tensor_map": spec}, y, reads=[x], writes=[y]))
    seen = []
    fake.kernels["mapped"] = lambda tensor_map, out: seen.append(int.from_bytes(tensor_map[:8], "little"))
    engine = p.engine()
    inputs = [on_device(engine, np.zeros((64, 32), np.float32)) for _ in range(2)]
    for made in inputs:
        engine(made)["y"].numpy()
    assert seen == [made.pointer + 32 for made in inputs]
    dtype, rank, _, *rest = fake.encoded[-1]
    assert (dtype, rank) == (int(real.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_FLOAT32), 2)
    swizzle = int(real.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_64B)
    promotion = int(real.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B)
    assert rest == [32, 63, 128, 16, 8, 1, 1, 0, swizzle, promotion, 0]
    spec["strides"] = [100]
    with pytest.raises(FailureError, match=r"tensor map of the kernel mapped \(f32, dims \[32, 63\], strides \[100\]"):
        p.engine()(inputs[0])


def test_scalars_have_their_types(fake, program):
    p = program()
    kinds = [
        (-3, "i64"), (7, "u8"), (["add", 2, 3], "i32"), (0.5, "f16"), ("inf", "f32"), ("nan", "f64"), (1.5, "bf16"),
        (1, "bool"),
    ]  # fmt: skip
    sizes = [8, 1, 4, 2, 4, 8, 2, 1]
    p.content.files["kernels/s.cubin"] = str({"scalars": sizes}).replace("'", '"').encode()
    p.kernel("scalars", "kernels/s.cubin")
    p.output("y", [1], buffer=p.input("x", [1]))
    p.segment(p.launch("scalars", *({"scalar": value, "dtype": dtype} for value, dtype in kinds)))
    seen = []
    fake.kernels["scalars"] = lambda *values: seen.extend(values)
    p.engine()(ramp(1))
    dtypes = ["i8", "u1", "i4", "f2", "f4", "f8", ml_dtypes.bfloat16, "?"]
    values = [np.frombuffer(raw, dtype)[0] for raw, dtype in zip(seen, dtypes, strict=True)]
    assert values[:5] == [-3, 7, 5, 0.5, np.inf]
    assert np.isnan(values[5])
    assert values[6:] == [1.5, True]


def test_ops_without_work_are_left_out(fake, program):
    p = program()
    x, y = p.input("x", ["n"]), p.output("y", ["n"])
    p.content.symbols.append({"name": "n", "input": 0, "axis": 0, "min": 0, "max": None, "divisor": 1})
    memset = {"op": "memset", "dst": {"buffer": y}, "bytes": ["mul", 4, "n"], "value": 0}
    p.segment(memset, p.scale(y, x, 2, "n"))
    engine = p.engine()
    assert engine(ramp(0))["y"].shape == (0,)
    np.testing.assert_array_equal(engine(ramp(3))["y"], 2 * ramp(3))
    assert [node.kind for node in fake.nodes()] == ["empty", "empty", "memset", "kernel"]


def test_graphs_are_kept_for_some_sizes_only(fake, program):
    p = program()
    x, y = p.input("x", ["n"]), p.output("y", ["n"])
    p.content.symbols.append({"name": "n", "input": 0, "axis": 0, "min": 1, "max": None, "divisor": 1})
    p.segment(p.scale(y, x, 2, "n"))
    engine = p.engine()
    for n in (*range(1, 40), 39, 38, 39, 2000):
        np.testing.assert_array_equal(engine(ramp(n))["y"], 2 * ramp(n))
    assert fake.instantiated == 16  # and changed for the other sizes
    assert len(fake.nodes()) == 16


def test_a_graph_of_another_form_is_made_anew(fake, program, monkeypatch):
    """With nothing to do a launch is an empty node, and no graph of a launch can be changed into that."""
    monkeypatch.setattr("tcc.runtime.cuda.executor.GRAPHS_PER_SEGMENT", 1)
    p = program()
    x, y = p.input("x", ["n"]), p.output("y", ["n"])
    p.content.symbols.append({"name": "n", "input": 0, "axis": 0, "min": 0, "max": None, "divisor": 1})
    p.segment(p.scale(y, x, 2, "n"))
    engine = p.engine()
    for n, made in ((3, 1), (300, 1), (0, 2), (7, 3), (8, 3)):
        np.testing.assert_array_equal(engine(ramp(n))["y"], 2 * ramp(n))
        assert fake.instantiated == made


def test_a_consumer_waits_for_the_thread_that_made_its_input(fake, program):
    maker, user = affine(program), affine(program)
    made = in_thread(lambda: maker(on_device(maker, ramp()))["y"])
    np.testing.assert_array_equal(user(made)["y"].numpy(), expected(expected(ramp())))


def test_a_context_taken_over_waits_for_its_last_call(fake, program):
    engine = affine(program)
    first = in_thread(lambda: engine(on_device(engine, ramp()))["y"])
    engine(on_device(engine, ramp(start=1)))["y"].numpy()  # waits for this thread's stream alone
    np.testing.assert_array_equal(view(first.pointer, N), expected(ramp()))


def test_an_input_dropped_after_a_call_lives_until_the_call_is_done(fake, program):
    engine = affine(program)
    made = in_thread(lambda: on_device(engine, ramp()))
    producer = made.stream
    result = engine(made)["y"]
    del made
    gc.collect()
    fake.cuStreamSynchronize(producer)  # its memory is freed and poisoned here at the earliest
    np.testing.assert_array_equal(result.numpy(), expected(ramp()))


def test_torchs_current_stream_is_used(fake, program, monkeypatch):
    engine = affine(program)
    with engine.executor.gpu.active():
        driver_stream = int(fake.cuStreamCreate(0)[1])
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True, current_stream=lambda ordinal: types.SimpleNamespace(cuda_stream=driver_stream)
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    fake.log.clear()
    np.testing.assert_array_equal(engine(ramp())["y"], expected(ramp()))
    assert ("graph", driver_stream) in fake.log
    assert ("synchronize", driver_stream) in fake.log


def test_interface_producers_are_waited_for(fake, program):
    """Without a stream the legacy default stream, else the one that is named."""
    engine = affine(program)
    source = on_device(engine, np.zeros(N, np.float32))
    for named, handle in ((None, 0), (1, 0), ("absent", 0), (source.stream, source.stream)):
        facts = {**source.__cuda_array_interface__, "stream": named}
        if named == "absent":
            del facts["stream"]
        content = ramp(start=handle % 7).tobytes()
        if named is not None:
            fake.cuMemcpyHtoDAsync(source.pointer, content_address(content), len(content), handle)
            fake.stream(handle).add(lambda held=content: held)
        producer = type("Producer", (), {"__cuda_array_interface__": facts})()
        result = engine(producer)["y"].numpy()
        if named is not None:
            np.testing.assert_array_equal(result, expected(ramp(start=handle % 7)))


def content_address(content):
    return np.frombuffer(content, np.uint8).ctypes.data


def test_dlpack_round_trip_of_a_device_array(fake, program):
    engine = affine(program)
    made = on_device(engine, ramp())
    kept = made.pointer
    capsule = made.__dlpack__(stream=-1)
    seen = dlpack.view(capsule)
    assert (seen.pointer, seen.dtype, seen.shape, seen.strides) == (kept, "f32", (N,), None)
    assert seen.device == made.__dlpack_device__() == (2, 0)
    del made
    gc.collect()
    assert kept in fake.live, "the capsule keeps the memory"
    del seen, capsule
    gc.collect()
    assert kept not in fake.live

    class Wrapped:
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

        def __dlpack__(self, *, stream=None):
            assert stream == engine.executor.gpu.stream()
            return self.array.__dlpack__(stream=stream)

    result = engine(Wrapped(on_device(engine, ramp())))["y"]
    np.testing.assert_array_equal(result.numpy(), expected(ramp()))


def test_dlpack_on_the_host(fake, program):
    engine = affine(program)

    class Host:
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

        def __dlpack__(self, **more):
            return self.array.__dlpack__(**more)

    for array in (ramp(), ramp(2 * N)[::2]):
        np.testing.assert_array_equal(engine(Host(array))["y"], expected(array))


def test_everything_is_freed(fake, program):
    engine = affine(program)
    out = engine(on_device(engine, ramp()))["y"]
    engine(ramp())
    weights = engine.executor.weights
    assert weights in fake.live
    assert out.pointer in fake.live
    engine.close()
    del engine, out
    gc.collect()
    assert fake.live == {}
    assert fake.pinned == {}
    assert fake.nodes() == []


def test_a_fault_is_one_sentence_and_the_context_is_lost(fake, program):
    engine = affine(program)
    engine(ramp())
    fake.fail["synchronize"] = real.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    with pytest.raises(
        driver.GpuError, match=r"CUDA_ERROR_ILLEGAL_ADDRESS, text of .*start the process again\.$"
    ) as caught:
        engine(ramp())
    assert caught.value.sticky
    assert caught.value.code == "CUDA_ERROR_ILLEGAL_ADDRESS"
    # Nothing more is said when the rest is let go of.
    fake.fail = {"release": real.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS}
    engine.close()
    fake.fail = {}


@pytest.mark.parametrize("fake", [{"memory": 1 << 20}], indirect=True)
def test_weights_and_outputs_that_do_not_fit(fake, program):
    p = program()
    x, y = p.input("x", [4]), p.output("y", [4])
    p.weight(np.ones(300_000, np.float32))
    p.segment(p.scale(y, x, 2, 4))
    with pytest.raises(FailureError, match="1,200,128 bytes for the engine's weights do not fit"):
        p.engine()
    with pytest.raises(
        FailureError, match=r"4,000,000 bytes for the inputs do not fit in the 1,0.* of 1,048,576 that are free on Fake"
    ):
        affine_without_weights(program)(ramp(1_000_000))


def affine_without_weights(program):
    p = program()
    x, y = p.input("x", [1_000_000]), p.output("y", [1_000_000])
    p.segment(p.scale(y, x, 2, 1_000_000))
    return p.engine()


def test_a_cubin_for_another_gpu_is_refused(fake, program):
    p = program()
    p.content.files["kernels/all.cubin"] = b"\x7fELF"
    p.output("y", [1], buffer=p.input("x", [1]))
    with pytest.raises(FailureError, match=r"kernels/all.cubin is not built for Fake GPU \(sm_90\)"):
        p.engine()


def test_without_a_driver_the_error_says_so(monkeypatch):
    if device.devices():
        pytest.skip("there is a GPU here")
    monkeypatch.setattr(driver, "_api", None)
    with pytest.raises(FailureError, match=r"an NVIDIA GPU is needed and .*CPU engine"):
        device.current_gpu()
    raw = cases_engine_bytes()
    with pytest.raises(FailureError, match="an NVIDIA GPU is needed"):
        load(raw)


def cases_engine_bytes():
    from tests.runtime.cuda.engines import FAKE_CUBIN, Program

    p = Program(FAKE_CUBIN)
    p.output("y", [1], buffer=p.input("x", [1]))
    return p.raw()


def test_which_cubins_run_where(fake):
    gpu = device.current_gpu().device
    assert (gpu.arch, gpu.l2, gpu.driver, gpu.name) == ("sm_90", 50 << 20, "13.0", "Fake GPU")
    assert gpu.runs("sm_90")
    assert gpu.runs("sm_90a")
    for other in ("sm_86", "sm_100", "sm_100a", "sm_120", "nonsense"):
        assert not gpu.runs(other)
    newer = device.Device(**{**gpu.__dict__, "capability": (8, 9)})
    assert newer.runs("sm_86")
    assert newer.runs("sm_80")
    assert not newer.runs("sm_90")
    blackwell = device.Device(**{**gpu.__dict__, "capability": (10, 3)})
    assert blackwell.runs("sm_100f")
    assert not blackwell.runs("sm_100a")
    assert not blackwell.runs("sm_110")
    assert device.devices() == [gpu]


def test_shared_cases_are_collected():
    assert len([name for name in vars(cases) if name.startswith("test_")]) > 20
