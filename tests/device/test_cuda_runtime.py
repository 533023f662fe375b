# SPDX-License-Identifier: Apache-2.0
"""Engines on a real GPU: the shared cases of the CUDA runtime, and the hardware features a launch can ask for."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.cuda.elf import cubin_arch
from tcc.errors import FailureError, InputError
from tcc.runtime.cuda import device, nvml
from tcc.runtime.cuda.timing import time_engine
from tests.device import sources
from tests.runtime.cuda.cases import *  # noqa: F403
from tests.runtime.cuda.cases import N, affine, expected, on_device, ramp


@pytest.fixture
def hopper(arch):
    if device.devices()[0].capability < (9, 0):
        pytest.skip(f"{arch} has no clusters and tensor maps")
    return arch


def with_kernel(program, source, entry, arch):
    p = program()
    p.content.files[f"kernels/{entry}.cubin"] = compile_cuda(source, arch).cubin
    p.kernel(entry, f"kernels/{entry}.cubin")
    return p


def test_device_facts():
    (first, *_) = device.devices()
    assert first.memory > 1 << 30
    assert first.l2 > 1 << 20
    assert first.shared_per_block_optin >= 64 << 10
    state = nvml.state(first)
    assert state is None or state.sm_clock > 0


@pytest.mark.parametrize("arch", ["75", "80", "86", "89", "90", "90a", "100", "120"])
def test_the_nvrtc_here_builds_for_every_architecture(arch):
    assert cubin_arch(compile_cuda(sources.FAULT, arch, cache=False).cubin) == f"sm_{arch}"


def test_tensor_maps(program, hopper):
    p = with_kernel(program, sources.TILE, "tile", hopper)
    x, y = p.input("x", [20, 64]), p.output("y", [6, 8, 32])
    spec = {"buffer": x, "dtype": "f32", "dims": [64, 20], "strides": [256], "box": [32, 8]}
    p.segment(p.launch("tile", {"tensor_map": spec}, y, reads=[x], writes=[y], grid=[2, 3, 1]))
    engine = p.engine()

    def tiles(x):
        padded = np.zeros((24, 64), np.float32)
        padded[:20] = x
        return padded.reshape(3, 8, 2, 32).transpose(0, 2, 1, 3).reshape(6, 8, 32)

    for start in (1, 2):
        value = ramp(1280, start).reshape(20, 64)
        np.testing.assert_array_equal(engine(value)["y"], tiles(value))
        np.testing.assert_array_equal(engine(on_device(engine, value))["y"].numpy(), tiles(value))


@pytest.mark.parametrize("size", [2, 8, 16])
def test_clusters(program, hopper, size):
    p = with_kernel(program, sources.CLUSTER, "ring", hopper)
    p.output("x", [1], buffer=p.input("x", [1]))
    y = p.output("y", [32, 2], "i32")
    p.segment(p.launch("ring", y, writes=[y], grid=[32, 1, 1], block=[32, 1, 1], cluster=[size, 1, 1]))
    result = p.engine()(ramp(1))["y"]
    blocks = np.arange(32)
    following = blocks // size * size + (blocks + 1) % size
    np.testing.assert_array_equal(result, np.stack([np.full(32, size), 100 + following], 1))


def test_cooperative_launches(program, arch):
    p = with_kernel(program, sources.GRID, "opposite", arch)
    p.output("x", [1], buffer=p.input("x", [1]))
    blocks = device.devices()[0].multiprocessors
    y, values, arrived = p.output("y", [blocks], "i32"), p.temp([blocks], "i32"), p.temp([1], "u32")
    zero = {"op": "memset", "dst": {"buffer": arrived}, "bytes": 4, "value": 0}
    launch = p.launch(
        "opposite", y, values, arrived, reads=[arrived], writes=[y, values, arrived],
        grid=[blocks, 1, 1], block=[32, 1, 1], cooperative=True,
    )  # fmt: skip
    p.segment(zero, launch)
    engine = p.engine()
    for _ in range(3):
        np.testing.assert_array_equal(engine(ramp(1))["y"], 7 * np.arange(blocks)[::-1])
    launch["grid"] = [1_000_000, 1, 1]
    with pytest.raises(FailureError, match="COOPERATIVE_LAUNCH_TOO_LARGE"):
        p.engine()(ramp(1))


def test_a_cubin_of_another_architecture_is_refused(program):
    p = program()
    p.content.files["kernels/all.cubin"] = compile_cuda(sources.FAULT, "75").cubin
    p.output("y", [1], buffer=p.input("x", [1]))
    with pytest.raises(FailureError, match=r"kernels/all.cubin is not built for .*--target sm_"):
        p.engine()


FAULTING = """
import sys
import numpy as np
from tcc.codegen.cuda.compile import compile_cuda
from tcc.errors import FailureError
from tcc.runtime.cuda.device import devices
from tests.device.sources import FAULT
from tests.runtime.cuda.engines import Program
arch = devices()[0].arch
p = Program(compile_cuda(FAULT, arch).cubin, arch=arch, sizes=["fault"])
x, y = p.input("x", [32]), p.output("y", [32])
p.segment(p.launch("fault", y, x, reads=[x], writes=[y]))
engine = p.engine()
for _ in range(2):
    try:
        engine(np.ones(32, np.float32))
    except FailureError as error:
        print(error)
"""


def test_a_fault_is_one_sentence_and_the_process_ends_well():
    done = subprocess.run([sys.executable, "-c", FAULTING], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in lines[0]
    assert lines[0].endswith("start the process again.")
    assert len(lines) == 2
    assert "Traceback" not in done.stderr


def test_another_cuda_context_is_used_where_it_is_current(program):
    """As PyCUDA's: made by the caller, current on the thread."""
    from tcc.runtime.cuda.driver import api, check

    cu = api()
    context = check(cu.cuCtxCreate(None, 0, check(cu.cuDeviceGet(0), "find")), "make a context")
    try:
        engine = affine(program)
        assert int(engine.executor.gpu.context) == int(context)
        assert not engine.executor.gpu.primary
        np.testing.assert_array_equal(engine(ramp())["y"], expected(ramp()))
        result = engine(on_device(engine, ramp()))["y"]
        np.testing.assert_array_equal(result.numpy(), expected(ramp()))
        del result, engine
    finally:
        check(cu.cuCtxPopCurrent(), "leave")
    np.testing.assert_array_equal(affine(program)(ramp())["y"], expected(ramp()))


def test_times_are_those_of_the_work(program):
    """Twice the bytes take about twice the time, in and out of the caches."""
    small, big = affine(program, 8 << 20), affine(program, 16 << 20)
    times = [
        min(time_engine(engine, [ramp(n)], rounds=5, rotate_bytes=1 << 30))
        for engine, n in ((small, 8 << 20), (big, 16 << 20))
    ]
    assert 1.6 < times[1] / times[0] < 2.5
    moved = 5 * 4 * (16 << 20)
    bandwidth = moved / times[1]
    assert bandwidth < 6e12, "nothing moves bytes that fast: the work was not done"


# torch, where it is installed.


@pytest.fixture
def torch():
    module = pytest.importorskip("torch", reason="torch is not installed")
    module.zeros(1, device="cuda")
    return module


def test_torch_tensors_in_and_out(program, torch):
    engine = affine(program)
    x = torch.arange(N, dtype=torch.float32, device="cuda")
    result = engine(x)["y"]
    np.testing.assert_array_equal(torch.from_dlpack(result).cpu().numpy(), expected(ramp()))
    np.testing.assert_array_equal(torch.as_tensor(result, device="cuda").cpu().numpy(), expected(ramp()))
    out = torch.zeros(N, device="cuda")
    assert engine.run([x], out={"y": out})["y"] is out
    np.testing.assert_array_equal(out.cpu().numpy(), expected(ramp()))
    bound = engine.bind({"x": x}, {"y": out})
    x += 1
    bound()
    np.testing.assert_array_equal(out.cpu().numpy(), expected(ramp(start=1)))
    np.testing.assert_array_equal(engine(x.cpu())["y"], expected(ramp(start=1)))
    wide = torch.arange(2 * N, dtype=torch.float32, device="cuda")
    np.testing.assert_array_equal(engine(wide[::2])["y"].numpy(), expected(ramp(2 * N)[::2]))
    with pytest.raises(InputError, match="bf16 and the engine takes f32"):
        engine(x.bfloat16())
    with pytest.raises(InputError, match="cannot be written in place"):
        engine.run([x], out={"y": wide[::2]})


def test_torchs_current_stream_is_honoured(program, torch):
    engine = affine(program)
    stream = torch.cuda.Stream()
    slow = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        assert engine.executor.gpu.stream() == stream.cuda_stream
        for _ in range(20):
            slow = slow @ slow / 64
        x = torch.arange(N, dtype=torch.float32, device="cuda") + 0 * slow.sum().nan_to_num()
        y = torch.from_dlpack(engine(x)["y"])
        doubled = y * 2
    stream.synchronize()
    np.testing.assert_array_equal(doubled.cpu().numpy(), 2 * expected(ramp()))


def test_dlpack_keeps_the_memory(program, torch):
    engine = affine(program)
    kept = [torch.from_dlpack(engine(on_device(engine, ramp(start=i)))["y"]) for i in range(20)]
    for i, tensor in enumerate(kept):
        np.testing.assert_array_equal(tensor.cpu().numpy(), expected(ramp(start=i)))


def test_bf16_tensors(program, torch, arch):
    source = """
    #include <cuda_bf16.h>
    extern "C" __global__ void twice(__nv_bfloat16 *out, const __nv_bfloat16 *x) {
      out[threadIdx.x] = __float2bfloat16(2 * __bfloat162float(x[threadIdx.x]));
    }"""
    p = with_kernel(program, source, "twice", arch)
    x, y = p.input("x", [64], "bf16"), p.output("y", [64], "bf16")
    p.segment(p.launch("twice", y, x, reads=[x], writes=[y], block=[64, 1, 1]))
    engine = p.engine()
    value = torch.arange(64, device="cuda").bfloat16()
    result = torch.from_dlpack(engine(value)["y"])
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, value * 2)
    assert engine(value.cpu())["y"].dtype.name == "bfloat16"


def test_cupy_arrays(program):
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    engine = affine(program)
    with cupy.cuda.Stream(non_blocking=True):
        x = cupy.arange(N, dtype=cupy.float32)
        result = cupy.asarray(engine(x)["y"])
        np.testing.assert_array_equal(cupy.asnumpy(result), expected(ramp()))
    grid = cupy.arange(2 * N, dtype=cupy.float32).reshape(N, 2)
    np.testing.assert_array_equal(engine(grid[:, 1])["y"].numpy(), expected(ramp(2 * N).reshape(N, 2)[:, 1]))


def test_threads_on_their_own_torch_streams(program, torch):
    engine = affine(program)
    failures = []

    def work(seed):
        with torch.cuda.stream(torch.cuda.Stream()):
            for i in range(30):
                x = torch.arange(N, dtype=torch.float32, device="cuda") + 100 * seed + i
                y = torch.from_dlpack(engine(x)["y"])
                if not np.array_equal(y.cpu().numpy(), expected(ramp(start=100 * seed + i))):
                    failures.append((seed, i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
