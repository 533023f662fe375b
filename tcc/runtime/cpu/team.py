# SPDX-License-Identifier: Apache-2.0
"""The process's team of worker threads, shared by all CPU engines.

The native side, with the layout of the team's memory, is in the native object of every engine (spec/engine.md,
section 5). Worker 0 is whoever calls; the others are daemon threads that enter native code once, sleep there when
idle, and leave it when the interpreter exits.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time

import numpy as np

from tcc.errors import FailureError, InputError
from tcc.runtime.cpu.objects import ObjectLibrary

ABI = 1
"""The version of the native functions and of the team's layout that this runtime drives."""

FUNCTIONS = ("tcc_abi", "tcc_spin", "tcc_run", "tcc_worker", "tcc_stop", "tcc_timed", "tcc_repeat")

_TEAM_BYTES = 640
_SPIN_OFFSET = 132
_SPIN_SECONDS = 100e-6
_STACK_BYTES = 16 << 20

_RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_WORKER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
_STOP = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_SPIN = ctypes.CFUNCTYPE(None, ctypes.c_int64)
_ABI = ctypes.CFUNCTYPE(ctypes.c_int64)


class Team:
    """Worker threads and the memory they meet at. One job at a time: callers on other threads wait their turn."""

    def __init__(self, library: ObjectLibrary) -> None:
        self._library = library  # the threads run its code until the process ends
        block = np.zeros(_TEAM_BYTES + 128, np.uint8)
        start = -block.ctypes.data % 128
        self._memory = block[start : start + _TEAM_BYTES]
        self.address = int(self._memory.ctypes.data)
        self._worker = _WORKER(library.address("tcc_worker"))
        self._stop = _STOP(library.address("tcc_stop"))
        self._threads: list[threading.Thread] = []
        self._cores = len(os.sched_getaffinity(0))
        self._pauses = _pauses(library)
        self.workers = 1
        self.closed = False
        self.lock = threading.Lock()

    def prepare(self, workers: int) -> None:
        """Get ready for jobs of this many workers, the caller included; `lock` is held."""
        # With more workers than cores, whoever spins keeps the core from the one it waits for.
        spin = self._pauses if workers <= self._cores else 0
        self._memory[_SPIN_OFFSET : _SPIN_OFFSET + 4].view(np.int32)[0] = spin
        self.workers = workers
        while len(self._threads) < workers - 1:
            number = len(self._threads) + 1
            thread = threading.Thread(
                target=self._worker, args=(self.address, number), name=f"tcc-worker-{number}", daemon=True
            )
            before = threading.stack_size(_STACK_BYTES)
            try:
                thread.start()
            finally:
                threading.stack_size(before)
            self._threads.append(thread)

    def close(self) -> None:
        """Send the threads home. They are asleep or about to be, unless another thread is in a call: then they stay."""
        if self._threads and self.lock.acquire(timeout=1.0):
            self.closed = True
            self.lock.release()
            self._stop(self.address)
            for thread in self._threads:
                thread.join(1.0)


class Runner:
    """Runs segments of one engine's library on the process's team."""

    def __init__(self, library: ObjectLibrary, name: str) -> None:
        abi = _ABI(library.address("tcc_abi"))()
        if abi != ABI:
            raise FailureError(
                f"the engine {name} has native code of ABI {abi} and this tcc runs {ABI}: build it again"
            )
        self._library = library
        self._run = _RUN(library.address("tcc_run"))

    def run(self, function: int, table: int, alone: bool = False) -> None:
        """Run a segment function over a table on the number of threads in force, or where there is nothing to share
        (`alone`) on the caller's; returns when all of it is done."""
        workers = _workers
        if workers == 1 or alone:
            self._run(0, function, table, 1)
            return
        team = _team if _team is not None else _start(self._library)
        with team.lock:
            if team.closed:  # the interpreter is on its way out
                workers = 1
            elif team.workers != workers:
                team.prepare(workers)
            self._run(team.address, function, table, workers)


def num_threads() -> int:
    """How many threads segments run on, the caller's included."""
    return _workers


def set_num_threads(count: int) -> None:
    """Run segments on `count` threads from the next call on; raises InputError unless it is positive."""
    global _workers
    if count < 1:
        raise InputError(f"the number of threads is {count}; it must be at least 1")
    _workers = count


def _pauses(library: ObjectLibrary) -> int:
    """How many pauses last as long as a waiter is to spin; a pause differs by CPU."""
    spin = _SPIN(library.address("tcc_spin"))
    seconds: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        spin(1000)
        seconds.append(time.perf_counter() - start)
    return min(max(int(1000 * _SPIN_SECONDS / max(min(seconds), 1e-9)), 1), 1 << 24)


def _default() -> int:
    text = os.environ.get("TCC_NUM_THREADS", "")
    if not text:
        return len(os.sched_getaffinity(0))
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"TCC_NUM_THREADS is '{text}'; it must be a positive number")
    return int(text)


def _start(library: ObjectLibrary) -> Team:
    global _team
    with _start_lock:
        if _team is None:
            _team = Team(library)
        return _team


def _close() -> None:
    if _team is not None:
        _team.close()


def _after_fork() -> None:
    """A child has none of the threads; it starts its own when it first needs them."""
    global _team, _start_lock, _abandoned
    _abandoned = _team  # its memory and code stay, in case a pointer to them is still about
    _team, _start_lock = None, threading.Lock()


_workers = _default()
_team: Team | None = None
_abandoned: Team | None = None
_start_lock = threading.Lock()
atexit.register(_close)
os.register_at_fork(after_in_child=_after_fork)
