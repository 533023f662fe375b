# SPDX-License-Identifier: Apache-2.0
"""NVRTC compilation, its cache, and reading architectures out of cubins. No GPU needed."""

import pytest

from tcc.codegen.cuda import compile as nvrtc
from tcc.codegen.cuda.elf import cubin_arch, kernel_registers, read_cubin
from tcc.errors import FailureError, InputError

SCALE = """
#include <cuda_fp16.h>
extern "C" __global__ void scale(__half *x, float a) {
  __shared__ float tile[64];
  tile[threadIdx.x] = a * __half2float(x[threadIdx.x]);
  __syncthreads();
  x[threadIdx.x] = __float2half(tile[63 - threadIdx.x]);
}
"""
ADD = 'extern "C" __global__ void add(float *x, float *y) { x[threadIdx.x] += y[threadIdx.x]; }'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TCC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("arch", ["75", "80", "86", "89", "90", "90a", "100", "120"])
def test_cubins_say_their_architecture(arch):
    built = nvrtc.compile_cuda(ADD, arch)
    assert built.arch == f"sm_{arch}"
    assert cubin_arch(built.cubin) == f"sm_{arch}"
    assert f".target sm_{arch}" in built.ptx


def _header(abi: int, flags: int, notes: bytes = b"") -> bytes:
    """A minimal ELF file with one named section, as both generations of assemblers write its header."""
    names = b"\0.note.nv.tkinfo\0.shstrtab\0"
    start = 64 + len(names) + len(notes)
    header = b"\x7fELF\x02\x01\x01" + bytes([0x33 if abi == 7 else 0x41, abi]) + bytes(7)
    header += (2).to_bytes(2, "little") + (190).to_bytes(2, "little") + (1).to_bytes(4, "little")
    header += (0).to_bytes(8, "little") * 2 + start.to_bytes(8, "little") + flags.to_bytes(4, "little")
    header += b"".join(n.to_bytes(2, "little") for n in (64, 0, 0, 64, 3, 2))

    def section(label: int, offset: int, size: int) -> bytes:
        return (
            label.to_bytes(4, "little")
            + bytes(20)
            + offset.to_bytes(8, "little")
            + size.to_bytes(8, "little")
            + bytes(24)
        )

    table = bytes(64) + section(1, 64 + len(names), len(notes)) + section(17, 64, len(names))
    return header + names + notes + table


@pytest.mark.parametrize(
    ("abi", "flags", "arch"),
    [
        # Read off cubins of NVRTC 12.8 (both layouts) and 13.5.
        (7, 0x004B054B, "sm_75"),
        (7, 0x00560556, "sm_86"),
        (7, 0x005A055A, "sm_90"),
        (7, 0x005A0D5A, "sm_90a"),
        (8, 0x06006402, "sm_100"),
        (8, 0x0600640A, "sm_100a"),
        (8, 0x06005604, "sm_86"),
    ],
)
def test_both_flag_layouts(abi, flags, arch):
    assert read_cubin(_header(abi, flags)).arch == arch
    assert read_cubin(_header(abi, flags)).abi == abi


def test_the_suffix_is_also_read_from_the_note():
    assert cubin_arch(_header(8, 0x06005A04, b"ptxas\0-arch sm_90a \0")) == "sm_90a"
    assert cubin_arch(_header(8, 0x06006402, b"ptxas\0-arch sm_100f \0")) == "sm_100f"


def test_what_is_no_cubin_is_refused():
    with pytest.raises(FailureError, match="not a cubin"):
        cubin_arch(b"MZ" + bytes(100))
    with pytest.raises(FailureError, match="cut short"):
        cubin_arch(nvrtc.compile_cuda(ADD, "86").cubin[:200])
    with open("/proc/self/exe", "rb") as file, pytest.raises(FailureError, match="machine"):
        cubin_arch(file.read())


def test_resources_and_entry_points():
    built = nvrtc.compile_cuda(SCALE, "sm_86")
    row = built.resources["scale"]
    assert row.shared == 256
    assert 4 <= row.registers <= 64
    assert (row.spill_stores, row.spill_loads) == (0, 0)
    assert built.warnings == ()


@pytest.mark.parametrize("arch", ["75", "86", "90a", "100", "120"])
def test_cubins_tell_their_registers_and_stack(arch):
    source = """
    extern "C" __global__ void stacked(float *x, int n) {
      float a[64];
      for (int i = 0; i < 64; ++i) a[i] = x[i * n];
      for (int i = 0; i < 64; ++i) a[(i * n) & 63] += a[i];
      x[threadIdx.x] = a[n & 63];
    }
    extern "C" __global__ void plain(float *x) { x[0] = 1; }"""
    built = nvrtc.compile_cuda(source, arch)
    assert {name: (row.registers, row.stack) for name, row in built.resources.items()} == kernel_registers(built.cubin)
    assert built.resources["stacked"].stack == 256
    assert built.resources["plain"].stack == 0


def test_spills_are_reported():
    body = "".join(f"float a{i} = x[{i} * n];" for i in range(60))
    total = "+".join(f"a{i} * x[a{i} > 0 ? {i} : n]" for i in range(60))
    source = f'extern "C" __global__ void k(float *x, int n){{ {body} __syncthreads(); x[threadIdx.x] = {total}; }}'
    row = nvrtc.compile_cuda(source, "86", options=("--maxrregcount=32",)).resources["k"]
    assert row.spill_stores > 0
    assert row.registers <= 32


def test_warnings_are_kept():
    source = 'extern "C" __global__ void k(float *x) { int unused; x[0] = 1; }'
    assert any("unused" in line for line in nvrtc.compile_cuda(source, "86").warnings)


def test_cache_hits_give_the_same_object(cache):
    first = nvrtc.compile_cuda(SCALE, "86", name="a")
    again = nvrtc.compile_cuda(SCALE, "86", name="b")
    assert not first.cached
    assert again.cached
    assert again.name == "b"
    assert (again.cubin, again.ptx, again.resources) == (first.cubin, first.ptx, first.resources)
    assert not nvrtc.compile_cuda(SCALE, "86", fmad=False).cached
    assert not nvrtc.compile_cuda(SCALE, "80").cached
    assert len([p for p in cache.rglob("*") if p.is_file()]) == 3


def test_a_damaged_cache_entry_is_built_again(cache):
    first = nvrtc.compile_cuda(ADD, "86")
    (path,) = [p for p in cache.rglob("*") if p.is_file()]
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    again = nvrtc.compile_cuda(ADD, "86")
    assert not again.cached
    assert again.cubin == first.cubin
    assert nvrtc.compile_cuda(ADD, "86").cached


def test_two_builds_are_the_same_bytes():
    assert nvrtc.compile_cuda(SCALE, "90a", cache=False).cubin == nvrtc.compile_cuda(SCALE, "90a", cache=False).cubin


def test_errors_carry_the_first_error_line():
    with pytest.raises(nvrtc.CompileError) as caught:
        nvrtc.compile_cuda('extern "C" __global__ void k(float *x) { int i; x[0] = nope; }', "86", name="conv_1")
    assert caught.value.line == 'kernel.cu(1): error: identifier "nope" is undefined'
    assert str(caught.value).startswith("conv_1 does not compile for sm_86: kernel.cu(1): error")
    assert "declared but never" in caught.value.log


def test_assembler_errors_are_compile_errors():
    source = 'extern "C" __global__ void k() { asm volatile("setmaxnreg.dec.sync.aligned.u32 40;"); }'
    with pytest.raises(nvrtc.CompileError, match=r"not supported on .target 'sm_90'"):
        nvrtc.compile_cuda(source, "sm_90")


def test_unknown_architectures_and_fast_math_are_refused():
    with pytest.raises(InputError, match=r"sm_52.*it knows sm_75"):
        nvrtc.compile_cuda(ADD, "sm_52")
    with pytest.raises(InputError, match="not a CUDA architecture"):
        nvrtc.normalize_arch("gfx90a")
    with pytest.raises(InputError, match="fast_math"):
        nvrtc.compile_cuda(ADD, "86", options=("--use_fast_math",))


def test_many_keeps_order_and_loses_only_the_bad():
    jobs = [("good", ADD), ("bad", "int x = y;"), ("same", ADD), ("half", SCALE)]
    good, bad, same, half = nvrtc.compile_many(jobs, "86", workers=2)
    assert isinstance(bad, nvrtc.CompileError)
    assert bad.name == "bad"
    assert good.cubin == same.cubin
    assert [good.name, same.name, half.name] == ["good", "same", "half"]
    assert "scale" in half.resources
