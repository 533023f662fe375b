# SPDX-License-Identifier: Apache-2.0
"""The team of worker threads: sizes, idle sleep, forks, exits."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tcc.compiler.engine_writer import to_bytes, write
from tcc.errors import InputError
from tcc.runtime import Engine, load
from tcc.runtime.cpu import team
from tests.runtime.cpu_engines import affine, affine_expected

ROOT = Path(__file__).resolve().parents[2]
X = np.linspace(-1, 1, 1000, dtype=np.float32)


@pytest.fixture
def engine() -> Iterator[Engine]:
    before = team.num_threads()
    yield load(to_bytes(affine()))
    team.set_num_threads(before)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("team") / "e.tcc"
    write(affine(), path)
    return path


def script(path: Path, body: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with the engine loaded as `e` and its input as `x`."""
    head = (
        "import sys, os, time, threading, numpy as np\nfrom tcc.runtime import load\nfrom tcc.runtime.cpu import team\n"
        "e = load(sys.argv[1])\nx = np.linspace(-1, 1, 1000, dtype=np.float32)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + body, str(path)],
        cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_size_can_change_between_calls(engine: Engine) -> None:
    for workers in (2, 5, 1, 3, 2, 4, 1, 5):
        team.set_num_threads(workers)
        for _ in range(20):
            np.testing.assert_array_equal(engine(X)["y0"], affine_expected(X))


def test_engines_share_the_team(engine: Engine) -> None:
    team.set_num_threads(3)
    others = [load(to_bytes(affine(n))) for n in (10, 1000, 5000)]
    count = None
    for _ in range(10):
        for other in (engine, *others):
            x = np.arange(other.inputs[0].shape[0], dtype=np.float32)
            np.testing.assert_array_equal(other(x)["y0"], affine_expected(x))
        now = sum(t.name.startswith("tcc-worker") for t in threading.enumerate())
        assert count in (None, now)
        count = now


def test_sleeping_workers_wake(engine: Engine) -> None:
    """Pauses longer than workers spin, so that calls find them asleep."""
    team.set_num_threads(3)
    for _ in range(20):
        np.testing.assert_array_equal(engine(X)["y0"], affine_expected(X))
        time.sleep(0.003)


def test_idle_workers_use_no_time(engine: Engine) -> None:
    team.set_num_threads(3)
    engine(X)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_number_of_threads_from_the_environment(path: Path) -> None:
    show = "e(x); print(team.num_threads(), sum(t.name.startswith('tcc-worker') for t in threading.enumerate()))"
    assert script(path, show, TCC_NUM_THREADS="3").stdout == "3 2\n"
    assert script(path, show, TCC_NUM_THREADS="1").stdout == "1 0\n"
    cores = len(os.sched_getaffinity(0))
    assert script(path, show, TCC_NUM_THREADS="").stdout == f"{cores} {cores - 1}\n"
    bad = script(path, show, TCC_NUM_THREADS="many")
    assert "InputError: TCC_NUM_THREADS is 'many'; it must be a positive number" in bad.stderr


def test_number_of_threads_is_checked() -> None:
    with pytest.raises(InputError, match="the number of threads is 0"):
        team.set_num_threads(0)


@pytest.mark.parametrize(
    "body",
    [
        "e(x)",  # workers still spin
        "e(x); time.sleep(0.01)",  # workers sleep
        "e(x); sys.exit(0)",
        "import atexit; b = e(x)['y0']; atexit.register(lambda: np.array_equal(e(x)['y0'], b) or os._exit(3))",
        "b = e.bind([x]); [b() for _ in range(99)]; os._exit(0)",
        "threading.Thread(target=lambda: [e(x) for _ in range(10**6)], daemon=True).start(); time.sleep(0.05)",
        "b = e.bind([x]); b(); del b, e",
        "e(x); del e; import gc; gc.collect(); time.sleep(0.01); e = load(sys.argv[1]); e(x)",
    ],
)
def test_exit_neither_hangs_nor_crashes(path: Path, body: str) -> None:
    for _ in range(3):
        start = time.monotonic()
        done = script(path, body, timeout=30, TCC_NUM_THREADS="3")
        assert (done.returncode, done.stderr) == (0, "")
        assert time.monotonic() - start < 10


def test_calls_after_the_team_has_gone(path: Path) -> None:
    """A handler registered before the runtime's own runs after it: the call is then done by the caller alone."""
    body = "print('done', np.array_equal(load(sys.argv[1])(np.ones(1000, 'f4'))['y0'], last[0]))"
    code = f"""
import atexit, sys, numpy as np
last = []
def late():
    from tcc.runtime import load
    {body}
atexit.register(late)
from tcc.runtime import load
last.append(load(sys.argv[1])(np.ones(1000, 'f4'))['y0'])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT, env={**os.environ, "TCC_NUM_THREADS": "3"}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("done True\n", "")


def test_exit_by_exception_and_signal(path: Path) -> None:
    assert script(path, "e(x); raise KeyboardInterrupt", TCC_NUM_THREADS="3").returncode != 0
    done = script(path, "import signal\ne(x); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", TCC_NUM_THREADS="3")
    assert done.returncode == -15


def test_fork(path: Path) -> None:
    """A child has none of its parent's threads: it makes its own, while the parent goes on."""
    body = """
first = e(x)["y0"]
children = []
for i in range(3):
    pid = os.fork()
    if pid == 0:
        good = all(np.array_equal(e(x)["y0"], first) for _ in range(50))
        os._exit(0 if good else 1)
    children.append(pid)
good = all(np.array_equal(e(x)["y0"], first) for _ in range(50))
print(good, [os.waitpid(pid, 0)[1] for pid in children])
"""
    done = script(path, body, TCC_NUM_THREADS="3")
    assert (done.stdout, done.stderr) == ("True [0, 0, 0]\n", "")


def test_fork_while_another_thread_is_in_a_call(path: Path) -> None:
    body = """
first = e(x)["y0"]
stop = threading.Event()
def work():
    while not stop.is_set():
        e(x)
thread = threading.Thread(target=work)
thread.start()
codes = []
for i in range(10):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if np.array_equal(e(x)["y0"], first) else 1)
    codes.append(os.waitpid(pid, 0)[1])
stop.set()
thread.join()
print(codes)
"""
    done = script(path, body, TCC_NUM_THREADS="2")
    assert (done.stdout, done.returncode) == (f"{[0] * 10}\n", 0), done.stderr


def test_a_saved_engine_runs_without_the_compiler(path: Path) -> None:
    body = """
e(x)
bad = [m for m in sys.modules if m.split('.')[0] in ('onnx', 'lark', 'networkx', 'cuda')
       or m.startswith(('tcc.ir', 'tcc.passes', 'tcc.codegen', 'tcc.compiler'))]
print(bad)
"""
    done = script(path, body)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_waiters_learn_whether_they_share_a_core(engine: Engine) -> None:
    """On one core spinning ends no wait, and the team's count of such waits says so; with time enough it ends one."""
    team.set_num_threads(2)
    engine(X)
    crew = team._team
    assert crew is not None
    threads = [threading.get_native_id(), *(t.native_id for t in crew._threads if t.native_id is not None)]
    allowed, spin, failed = os.sched_getaffinity(0), crew._memory[132:136].view(np.int32), crew._memory[516:520]
    before = int(spin[0])
    spin[0] = crew._pauses
    try:
        for thread in threads:
            os.sched_setaffinity(thread, {min(allowed)})
        counts: list[int] = []
        for _ in range(500):
            np.testing.assert_array_equal(engine(X)["y0"], affine_expected(X))
            counts.append(int(failed.view(np.int32)[0]))
        assert max(counts) > 4
        for thread in threads:
            os.sched_setaffinity(thread, allowed)
        spin[0] = 1000 * crew._pauses
        calls = 0
        while failed.view(np.int32)[0] and calls < 5000:
            np.testing.assert_array_equal(engine(X)["y0"], affine_expected(X))
            calls += 1
        assert failed.view(np.int32)[0] == 0
    finally:
        spin[0] = before
        for thread in threads:
            os.sched_setaffinity(thread, allowed)
