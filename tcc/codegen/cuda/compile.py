# SPDX-License-Identifier: Apache-2.0
"""CUDA C++ to cubin for any sm_XX with NVRTC; no GPU and no CUDA toolkit needed.

Results are kept in a content-addressed cache on disk (`TCC_CACHE_DIR`, by default `~/.cache/tcc`), keyed by source,
architecture, options and the versions of NVRTC and its headers. Two processes may share it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tcc.codegen.cuda.elf import kernel_registers
from tcc.errors import FailureError, InputError

_CACHE_FORMAT = 1
_PROGRAM = "kernel.cu"
_ARCH = re.compile(r"(?:sm_|compute_)?(\d{2,3})([af]?)")
_ERROR = re.compile(r"\berror\b|\bfatal\b", re.IGNORECASE)
# C7508 and its like (wgmma serialised, setmaxnreg ignored) are printed as information, and mean a slow kernel.
_WARNING = re.compile(r"\bwarning\b|\(C7\d{3}\)", re.IGNORECASE)


class CompileError(FailureError):
    """A source that NVRTC or ptxas refused. `log` is all they said, `line` its first error, `name` the job's name."""

    def __init__(self, name: str, arch: str, log: str) -> None:
        self.name = name
        self.arch = arch
        self.log = log
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        self.line = next((line for line in lines if _ERROR.search(line)), lines[0] if lines else "no message")
        super().__init__(f"{name} does not compile for {arch}: {self.line}")


@dataclass(frozen=True)
class Resources:
    """What one kernel uses, as ptxas reports it: registers a thread, bytes of stack, spills, static shared memory."""

    registers: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    shared: int = 0
    barriers: int = 0


@dataclass(frozen=True)
class CudaObject:
    """A compiled source: its cubin and PTX, what ptxas said of each entry, and the seconds NVRTC took when it ran."""

    name: str
    arch: str
    cubin: bytes
    ptx: str
    log: str
    resources: Mapping[str, Resources]
    warnings: tuple[str, ...]
    seconds: float
    cached: bool


def normalize_arch(arch: str | int) -> str:
    """`86`, `"86"`, `"compute_86"` or `"sm_86"` as `"sm_86"`; InputError for anything else."""
    match = _ARCH.fullmatch(str(arch))
    if not match:
        raise InputError(f"{arch!r} is not a CUDA architecture: write it as sm_86 or sm_90a.")
    return f"sm_{match[1]}{match[2]}"


@functools.cache
def nvrtc_version() -> tuple[int, int]:
    """The version of the NVRTC library in use, such as (13, 5)."""
    nvrtc = _nvrtc()
    major, minor = _checked(nvrtc.nvrtcVersion())
    return major, minor


@functools.cache
def supported_archs() -> tuple[str, ...]:
    """The architectures this NVRTC compiles for, without the `a` and `f` variants."""
    return tuple(f"sm_{sm}" for sm in _checked(_nvrtc().nvrtcGetSupportedArchs()))


@functools.cache
def include_dir() -> Path:
    """The folder of cuda_fp16.h and its like: of the package nvidia-cuda-runtime, else of CUDA_HOME or CUDA_PATH.

    Wheels keep it at `nvidia/cu13/include` or `nvidia/cuda_runtime/include`; that of NVRTC's major version goes first.
    """
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    major = nvrtc_version()[0]
    folders = [root / part / "include" for part in (f"cu{major}", "cuda_runtime") for root in roots]
    folders += [Path(os.environ[name]) / "include" for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    for folder in folders:
        if (folder / "cuda_fp16.h").is_file():
            return folder
    raise FailureError("the CUDA headers are not installed: install nvidia-cuda-runtime, or set CUDA_HOME.")


@functools.cache
def toolchain() -> str:
    """What compiles, for records and cache keys: `nvrtc 13.5 headers 13050`."""
    text = (include_dir() / "cuda.h").read_text(encoding="utf-8", errors="replace")
    match = re.search(r"#define\s+CUDA_VERSION\s+(\d+)", text)
    return f"nvrtc {'.'.join(map(str, nvrtc_version()))} headers {match[1] if match else 'unknown'}"


def cache_dir() -> Path:
    """The folder of compiled CUDA sources."""
    return Path(os.environ.get("TCC_CACHE_DIR") or Path.home() / ".cache" / "tcc") / "cuda"


def compile_cuda(
    source: str,
    arch: str | int,
    *,
    name: str = "the kernel",
    fmad: bool = True,
    options: Sequence[str] = (),
    cache: bool = True,
) -> CudaObject:
    """Compiles one self-contained source (which may include the toolkit's headers) to a cubin of `arch`.

    `name` appears in errors only; `fmad` lets a*b+c round once; `options` are further NVRTC options.
    CompileError when the source is refused, InputError for an architecture this NVRTC does not know.
    """
    arch = normalize_arch(arch)
    if any("fast_math" in option for option in options):
        raise InputError(
            "--use_fast_math changes what a kernel computes and is not accepted: write the fast intrinsic."
        )
    flags = [f"--gpu-architecture={arch}", "--std=c++17", f"--fmad={str(fmad).lower()}", *options]
    key = hashlib.sha256(json.dumps([_CACHE_FORMAT, toolchain(), flags, source]).encode()).hexdigest()
    path = cache_dir() / key[:2] / key
    if cache and (found := _read_cache(path)) is not None:
        return replace(found, name=name)
    if f"sm_{re.sub('[^0-9]', '', arch)}" not in supported_archs():
        known = ", ".join(supported_archs())
        raise InputError(f"NVRTC {'.'.join(map(str, nvrtc_version()))} does not compile for {arch}: it knows {known}.")
    built = _compile(source, arch, name, [*flags, *_no_cache(), "--ptxas-options=-v", f"-I{include_dir()}"])
    if cache:
        _write_cache(path, built)
    return built


def compile_many(
    jobs: Iterable[tuple[str, str]],
    arch: str | int,
    *,
    fmad: bool = True,
    options: Sequence[str] = (),
    workers: int | None = None,
    cache: bool = True,
) -> list[CudaObject | CompileError]:
    """Compiles (name, source) pairs on `workers` threads (default: the cores there are), results in the jobs' order.

    A source that is refused becomes its CompileError in the list; equal sources are compiled once.
    """
    listed = list(jobs)
    distinct = dict.fromkeys(source for _, source in listed)

    def one(source: str) -> CudaObject | CompileError:
        try:
            return compile_cuda(source, arch, fmad=fmad, options=options, cache=cache)
        except CompileError as error:
            return error

    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)), thread_name_prefix="nvrtc") as pool:
        results = dict(zip(distinct, pool.map(one, distinct), strict=True))
    named: list[CudaObject | CompileError] = []
    for name, source in listed:
        result = results[source]
        named.append(
            CompileError(name, result.arch, result.log)
            if isinstance(result, CompileError)
            else replace(result, name=name)
        )
    return named


def parse_resources(log: str) -> dict[str, Resources]:
    """What ptxas -v says of each entry in a log."""
    found: dict[str, Resources] = {}
    entry = ""
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '([^']+)'", line):
            entry = match[1]
            found[entry] = Resources()
        elif not entry:
            continue
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack, stores, loads = map(int, match.groups())
            found[entry] = replace(found[entry], stack=stack, spill_stores=stores, spill_loads=loads)
        elif match := re.search(r"Used (\d+) registers", line):
            barriers = re.search(r"used (\d+) barriers", line)
            shared = re.search(r"(\d+) bytes smem", line)
            found[entry] = replace(
                found[entry],
                registers=int(match[1]),
                barriers=int(barriers[1]) if barriers else 0,
                shared=int(shared[1]) if shared else 0,
            )
            entry = ""
    return found


@functools.cache
def _no_cache() -> tuple[str, ...]:
    """The option, where there is one, that keeps NVRTC from its own cache: a hit there says nothing of registers."""
    nvrtc = _nvrtc()
    program = _checked(nvrtc.nvrtcCreateProgram(b"", _PROGRAM.encode(), 0, None, None))
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, 1, [b"--no-cache"])
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return () if int(status) else ("--no-cache",)


def _resources(log: str, cubin: bytes) -> dict[str, Resources]:
    """What ptxas said; where NVRTC does not pass that on, what the cubin says, which is nothing of spills."""
    said = parse_resources(log)
    return said or {name: Resources(registers=r, stack=s) for name, (r, s) in kernel_registers(cubin).items()}


def _nvrtc() -> Any:
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()
    except Exception as error:  # the loader's exception classes differ between versions of cuda-bindings
        raise FailureError(
            f"the NVRTC library cannot be loaded ({error}): install cuda-bindings and nvidia-cuda-nvrtc."
        ) from error
    return nvrtc


def _checked(result: tuple[Any, ...]) -> Any:
    """The values of an NVRTC call that cannot fail on good arguments."""
    status, *values = result
    if int(status) != 0:
        raise FailureError(f"NVRTC failed with {status.name}; check the installation of nvidia-cuda-nvrtc.")
    return values[0] if len(values) == 1 else tuple(values)


def _compile(source: str, arch: str, name: str, flags: list[str]) -> CudaObject:
    nvrtc = _nvrtc()
    start = time.perf_counter()
    program = _checked(nvrtc.nvrtcCreateProgram(source.encode(), _PROGRAM.encode(), 0, None, None))
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
        log = (
            _fetch(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            .rstrip(b"\0")
            .decode("utf-8", "replace")
        )
        if int(status) != 0:
            raise CompileError(name, arch, log or nvrtc.nvrtcGetErrorString(status)[1].decode())
        cubin = _fetch(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        ptx = _fetch(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program).rstrip(b"\0").decode()
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    # The assembler's own timing is the one line that differs between equal runs.
    log = "\n".join(line for line in log.splitlines() if "Compile time" not in line)
    warnings = tuple(line.strip() for line in log.splitlines() if _WARNING.search(line))
    seconds = time.perf_counter() - start
    return CudaObject(name, arch, cubin, ptx, log, _resources(log, cubin), warnings, seconds, cached=False)


def _fetch(size: Any, get: Any, program: Any) -> bytes:
    """One of NVRTC's results: asks for its size, then has it written over bytes of that size."""
    count = _checked(size(program))
    data = bytes(count)
    _checked((*get(program, data), None))
    return data


def _read_cache(path: Path) -> CudaObject | None:
    """The cached result at `path`; None when there is none or it is damaged (it is then built again)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    head, _, body = data.partition(b"\n")
    try:
        meta = json.loads(head)
        cubin, ptx = body[: meta["cubin"]], body[meta["cubin"] :]
        if hashlib.sha256(body).hexdigest() != meta["sha256"]:
            return None
    except (ValueError, KeyError, TypeError):
        return None
    resources = {entry: Resources(**row) for entry, row in meta["resources"].items()}
    return CudaObject(
        meta["name"],
        meta["arch"],
        cubin,
        ptx.decode(),
        meta["log"],
        resources,
        tuple(meta["warnings"]),
        meta["seconds"],
        True,
    )


def _write_cache(path: Path, built: CudaObject) -> None:
    body = built.cubin + built.ptx.encode()
    meta = {
        "name": "",
        "arch": built.arch,
        "cubin": len(built.cubin),
        "sha256": hashlib.sha256(body).hexdigest(),
        "log": built.log,
        "resources": {entry: asdict(row) for entry, row in built.resources.items()},
        "warnings": list(built.warnings),
        "seconds": built.seconds,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(json.dumps(meta, sort_keys=True).encode() + b"\n" + body)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise FailureError(
            f"the cubin cannot be kept in {path.parent} ({error.strerror}): set TCC_CACHE_DIR to another folder."
        ) from error
