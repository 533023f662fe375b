# SPDX-License-Identifier: Apache-2.0
"""The object compiler: failures stay with their module, results are cached and safe to share."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tcc.codegen.llvm import compile as compiler
from tcc.codegen.llvm.compile import CompileError, CpuTarget, Object, compile_all, compile_many, native_target

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TCC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def add(name: str, constant: int = 1) -> str:
    return f"define i64 @{name}(i64 %x) {{\n  %y = add i64 %x, {constant}\n  ret i64 %y\n}}\n"


ASM = 'define void @f() {\n  call void asm sideeffect "nonsense", ""()\n  ret void\n}\n'
# An AVX-512 intrinsic where the target lacks the feature: LLVM cannot select it and ends the process.
UNSELECTABLE = (
    "define <16 x float> @f(<16 x float> %x) {\n"
    "  %y = call <16 x float> @llvm.x86.avx512.rcp14.ps.512(<16 x float> %x, <16 x float> %x, i16 -1)\n"
    "  ret <16 x float> %y\n}\n"
    "declare <16 x float> @llvm.x86.avx512.rcp14.ps.512(<16 x float>, <16 x float>, i16)\n"
)
X86 = CpuTarget("x86_64-unknown-linux-gnu", "x86-64")


def good(result: Object | CompileError) -> bytes:
    assert isinstance(result, Object), result
    return result.content


def test_results_come_in_order() -> None:
    jobs = [(f"f{i}", add(f"f{i}")) for i in range(6)]
    results = compile_many(jobs, native_target())
    assert [r.name for r in results if isinstance(r, Object)] == [name for name, _ in jobs]
    for (name, _), result in zip(jobs, results, strict=True):
        content = good(result)
        assert content[:4] == b"\x7fELF"
        assert name.encode() + b"\0" in content


def test_a_bad_module_loses_only_itself() -> None:
    jobs = [("a", add("a")), ("text", "define void @f( {"), ("asm", ASM), ("fatal", UNSELECTABLE), ("b", add("b"))]
    for workers in (1, 3):
        a, text, asm, fatal, b = compile_many(jobs, X86, workers=workers)
        good(a)
        good(b)
        assert isinstance(text, CompileError) and not text.crashed
        assert str(text).startswith("text: LLVM IR parsing error") and "expected type" in str(text)
        assert isinstance(asm, CompileError) and "invalid instruction mnemonic 'nonsense'" in str(asm)
        assert isinstance(fatal, CompileError) and fatal.crashed
        assert "LLVM ERROR: " in str(fatal)
    with pytest.raises(CompileError, match=r"^fatal: LLVM crashed"):
        compile_all(jobs[3:], X86)


def test_invalid_ir_is_an_error() -> None:
    (result,) = compile_many(
        [("v", "define i32 @f() {\n  %y = add i32 1, %x\n  %x = add i32 1, 1\n  ret i32 %y\n}\n")], X86
    )
    assert isinstance(result, CompileError) and "does not dominate" in str(result)


def test_timeout() -> None:
    slow = "define void @f(ptr %p) {\n"
    slow += "".join(
        f"  %v{i} = load i64, ptr %p\n  %w{i} = mul i64 %v{i}, {i}\n  store volatile i64 %w{i}, ptr %p\n"
        for i in range(60_000)
    )
    start = time.monotonic()
    result, other = compile_many([("slow", slow + "  ret void\n}\n"), ("fast", add("f"))], X86, timeout=0.4)
    assert isinstance(result, CompileError) and result.timed_out
    assert "slow: LLVM was not done after 0.4 s" in str(result)
    good(other)
    assert time.monotonic() - start < 5
    good(compile_many([("after", add("g"))], X86)[0])


def test_cache(own_cache: Path) -> None:
    (first,) = compile_many([("f", add("f"))], X86)
    (second,) = compile_many([("f", add("f"))], X86)
    assert isinstance(first, Object) and isinstance(second, Object)
    assert (first.cached, second.cached) == (False, True)
    assert first.content == second.content
    others = [
        compile_many([("f", add("f"))], X86, opt_level=1),
        compile_many([("f", add("f"))], CpuTarget(X86.triple, X86.cpu, ("avx2",))),
        compile_many([("f", add("f"))], X86, emit="assembly"),
        compile_many([("f", add("f", 2))], X86),
    ]
    for (other,) in others:
        assert isinstance(other, Object) and not other.cached
    files = [p for p in own_cache.rglob("*") if p.is_file()]
    assert len(files) == 5
    for file in files:  # a damaged entry is made again
        file.write_bytes(file.read_bytes()[:-1])
    (third,) = compile_many([("f", add("f"))], X86)
    assert isinstance(third, Object)
    assert (third.cached, third.content) == (False, first.content)


def test_errors_are_not_cached(own_cache: Path) -> None:
    compile_many([("f", "nonsense")], X86)
    assert not [p for p in own_cache.rglob("*") if p.is_file()]


def test_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_CACHE_DIR", "/dev/null/cache")
    good(compile_many([("f", add("f"))], X86)[0])


def test_equal_texts_are_compiled_once(own_cache: Path) -> None:
    results = compile_many([("a", add("f")), ("b", add("f"))], X86)
    assert [r.name for r in results if isinstance(r, Object)] == ["a", "b"]
    assert len([p for p in own_cache.rglob("*") if p.is_file()]) == 1


def test_emits() -> None:
    job = [("f", add("f", 41))]
    assembly = good(compile_many(job, X86, emit="assembly")[0]).decode()
    assert "leaq\t41(%rdi), %rax" in assembly
    text = good(compile_many(job, X86, emit="llvm")[0]).decode()
    assert "define" in text and "add i64 %x, 41" in text
    with pytest.raises(ValueError, match="object, assembly, llvm"):
        compile_many(job, X86, emit="poem")


def test_same_input_same_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = good(compile_many([("f", add("f"))], X86)[0])
    monkeypatch.setenv("TCC_CACHE_DIR", str(tmp_path / "other"))
    assert good(compile_many([("f", add("f"))], X86)[0]) == first


def test_features_without(monkeypatch: pytest.MonkeyPatch) -> None:
    target = CpuTarget("x86_64-unknown-linux-gnu", "sapphirerapids", (), ("avx512fp16", "amx-tile"))
    assert target.feature_string() == "-avx512fp16,-amx-tile"
    text = "define <8 x half> @f(<8 x half> %x) {\n  %y = fadd <8 x half> %x, %x\n  ret <8 x half> %y\n}\n"
    with_it = CpuTarget("x86_64-unknown-linux-gnu", "sapphirerapids")
    assert b"vaddph" in good(compile_many([("f", text)], with_it, emit="assembly")[0])
    assert b"vaddph" not in good(compile_many([("f", text)], target, emit="assembly")[0])


def test_a_killed_worker_is_replaced() -> None:
    good(compile_many([("f", add("f"))], X86)[0])
    worker = compiler._idle[-1]
    assert worker._process is not None
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    good(compile_many([("g", add("g"))], X86)[0])


def test_threads_may_compile_at_once() -> None:
    results: dict[int, bytes] = {}

    def work(i: int) -> None:
        results[i] = good(compile_many([(f"f{i}", add(f"f{i}", i))], X86)[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"f{i}".encode() in results[i] for i in range(5))


def test_processes_may_share_the_cache(own_cache: Path) -> None:
    script = (
        "from tcc.codegen.llvm.compile import *\n"
        "jobs = [(f'f{i}', f'define i64 @f{i}() {{ ret i64 {i} }}') for i in range(8)]\n"
        "print(len(compile_all(jobs, CpuTarget('x86_64-unknown-linux-gnu', 'x86-64'))))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [r.communicate(timeout=60)[0] for r in runs] == ["8\n", "8\n"]
    files = [p for p in own_cache.rglob("*") if p.is_file()]
    assert len(files) == 8


def test_workers_end_with_the_process() -> None:
    script = (
        "from tcc.codegen.llvm import compile as c\n"
        "c.compile_all([('f', 'define void @f() { ret void }')], c.CpuTarget('x86_64-unknown-linux-gnu', 'x86-64'))\n"
        "print(c._idle[0]._process.pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
