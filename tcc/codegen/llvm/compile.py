# SPDX-License-Identifier: Apache-2.0
"""LLVM IR text to native objects, in worker processes and through an on-disk cache.

LLVM answers some bad input by ending its process, and may take very long over other; a worker process that does
either loses only the module it had. Workers live as long as this process and are shared by all callers in it. Results
are cached by content under ``$TCC_CACHE_DIR`` (default ``~/.cache/tcc``), which any number of processes may share.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tcc.errors import FailureError

EMITS = ("object", "assembly", "llvm")

_WORKER = Path(__file__).with_name("compile_worker.py")


class CompileError(FailureError):
    """LLVM did not compile a module: it refused it, crashed (`crashed`) or took longer than the limit (`timed_out`)."""

    def __init__(self, message: str, *, crashed: bool = False, timed_out: bool = False) -> None:
        super().__init__(message)
        self.crashed = crashed
        self.timed_out = timed_out


@dataclass(frozen=True)
class CpuTarget:
    """What code is made for: an LLVM triple, a CPU name and the names of features.

    The code needs all of `features`, and what the CPU's name implies, but for those in `without`, which a virtual
    machine or an operating system may hide.
    """

    triple: str
    cpu: str
    features: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def feature_string(self) -> str:
        """LLVM's form: ``+avx2,+fma,-amx-tile``."""
        return ",".join([f"+{name}" for name in self.features] + [f"-{name}" for name in self.without])


@dataclass(frozen=True)
class Object:
    """A compiled module: an ELF object, or text where ``emit`` asked for assembly or optimised IR."""

    name: str
    content: bytes
    cached: bool = False


@functools.cache
def native_target() -> CpuTarget:
    """The CPU of this machine with all features that LLVM knows it has."""
    import llvmlite.binding as llvm

    features = sorted(llvm.get_host_cpu_features().items())
    present = tuple(name for name, is_present in features if is_present)
    absent = tuple(name for name, is_present in features if not is_present)
    return CpuTarget(llvm.get_process_triple(), llvm.get_host_cpu_name(), present, absent)


def compile_many(
    jobs: Iterable[tuple[str, str]],
    target: CpuTarget,
    *,
    opt_level: int = 3,
    emit: str = "object",
    timeout: float = 60.0,
    workers: int | None = None,
) -> list[Object | CompileError]:
    """Compile modules, in parallel; one result for each job ``(name, IR text)``, in order.

    A job that fails gives a CompileError in its place and touches no other. `timeout` is in seconds a module, `workers`
    defaults to the cores this process may use. Equal texts are compiled once.
    """
    if emit not in EMITS:
        raise ValueError(f"emit is {emit!r}; it can be {', '.join(EMITS)}")
    jobs = list(jobs)
    count = workers or len(os.sched_getaffinity(0))
    requests = [_request(text, target, opt_level, emit) for _, text in jobs]
    unique = list(dict.fromkeys(requests))
    if len(unique) <= 1 or count == 1:
        answers = [_compile_cached(request, timeout) for request in unique]
    else:
        with ThreadPoolExecutor(min(count, len(unique))) as threads:
            answers = list(threads.map(lambda request: _compile_cached(request, timeout), unique))
    by_request = dict(zip(unique, answers, strict=True))
    results: list[Object | CompileError] = []
    for (name, _), request in zip(jobs, requests, strict=True):
        content, cached, error = by_request[request]
        if error is not None:
            results.append(CompileError(f"{name}: {error}", crashed=error.crashed, timed_out=error.timed_out))
        else:
            results.append(Object(name, content, cached))
    return results


def compile_all(jobs: Sequence[tuple[str, str]], target: CpuTarget, **options: object) -> list[Object]:
    """`compile_many` where every module must compile; raises the first CompileError."""
    results: list[Object] = []
    for result in compile_many(jobs, target, **options):  # type: ignore[arg-type]
        if isinstance(result, CompileError):
            raise result
        results.append(result)
    return results


def cache_dir() -> Path:
    """Where compiled kernels are kept: ``$TCC_CACHE_DIR``, else ``tcc`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("TCC_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tcc"


def _request(text: str, target: CpuTarget, opt_level: int, emit: str) -> bytes:
    facts = {
        "ir": text,
        "triple": target.triple,
        "cpu": target.cpu,
        "features": target.feature_string(),
        "opt": opt_level,
        "emit": emit,
    }
    return json.dumps(facts, sort_keys=True).encode()


@functools.cache
def _toolchain() -> bytes:
    """What else the result depends on: the versions of llvmlite and LLVM, and the worker's own text."""
    import llvmlite
    import llvmlite.binding as llvm

    version = ".".join(map(str, llvm.llvm_version_info))
    return f"llvmlite {llvmlite.__version__}, LLVM {version}\n".encode() + _WORKER.read_bytes()


def _compile_cached(request: bytes, timeout: float) -> tuple[bytes, bool, CompileError | None]:
    key = hashlib.sha256(_toolchain() + b"\0" + request).hexdigest()
    path = cache_dir() / "llvm" / key[:2] / key
    content = _load(path)
    if content is not None:
        return content, True, None
    worker = _take_worker()
    try:
        content = worker.compile(request, timeout)
    except CompileError as error:
        return b"", False, error
    finally:
        _return_worker(worker)
    _store(path, content)
    return content, False, None


def _load(path: Path) -> bytes | None:
    """A cached result; None where there is none or it is damaged (its digest comes first)."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, content = stored[:32], stored[32:]
    return content if hashlib.sha256(content).digest() == digest else None


def _store(path: Path, content: bytes) -> None:
    """Keep a result; a cache that cannot be written costs time later, so that is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    except OSError:
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)


class _Worker:
    """One worker process; restarted after a crash or a timeout. Used by one thread at a time."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker

    def compile(self, request: bytes, timeout: float) -> bytes:
        process = self._start()
        deadline = time.monotonic() + timeout
        try:
            assert process.stdin is not None
            process.stdin.write(struct.pack("<Q", len(request)) + request)
            process.stdin.flush()
            failed, size = struct.unpack("<?Q", self._read(process, 9, deadline))
            content = self._read(process, size, deadline)
        except TimeoutError:
            self.stop()
            raise CompileError(f"LLVM was not done after {timeout:g} s", timed_out=True) from None
        except (EOFError, BrokenPipeError):
            status = process.wait()
            reason = self._last_error() or (f"signal {-status}" if status < 0 else f"exit status {status}")
            self.stop()
            raise CompileError(f"LLVM crashed: {reason}", crashed=True) from None
        except BaseException:
            self.stop()  # an interrupt leaves an answer on the way that would be taken for the next one's
            raise
        if failed:
            raise CompileError(content.decode(errors="replace"))
        return content

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        pass  # what was not yet written is of no use to anyone now

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        self._errors.seek(0)
        self._errors.truncate()
        # -P keeps this folder, whose file names are ordinary words, off the worker's module path.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        return self._process

    def _read(self, process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        parts: list[bytes] = []
        while size:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(descriptor, min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines()]
        marked = [line for line in lines if line.startswith("LLVM ERROR") or "Assertion" in line or "error:" in line]
        return marked[0] if marked else next((line for line in reversed(lines) if line), "")


_idle: list[_Worker] = []
_idle_lock = threading.Lock()


def _take_worker() -> _Worker:
    with _idle_lock:
        while _idle:
            worker = _idle.pop()
            if worker.owner == os.getpid():
                return worker
    return _Worker()


def _return_worker(worker: _Worker) -> None:
    with _idle_lock:
        _idle.append(worker)


def _stop_workers() -> None:
    with _idle_lock:
        for worker in _idle:
            if worker.owner == os.getpid():
                worker.stop()
        _idle.clear()


def _after_fork() -> None:
    global _idle_lock
    _idle_lock = threading.Lock()
    _idle.clear()


atexit.register(_stop_workers)
os.register_at_fork(after_in_child=_after_fork)
