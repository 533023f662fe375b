# SPDX-License-Identifier: Apache-2.0
"""The search's worker with an engine for a GPU, on the fake driver: checked, judged, timed over rotated constants."""

import gc

import numpy as np

from tcc.compiler.search.wire import pack_array
from tcc.compiler.search.worker import Worker
from tests.runtime.cuda.cases import N, ramp


def prepared(scale: float = 3.0, strides: int = 1):
    """A worker that knows the problem y = scale (x + w) and what must come out."""
    worker = Worker()
    value = (scale * (ramp() + 2 * ramp())).astype(np.float64)
    check = {"name": "y0", "dtype": "float32", "dense": strides == 1, "shape": [N], "strides": [strides], "at": 0,
             "kind": "float", "largest": 3e38}  # fmt: skip
    parts = [pack_array(a) for a in (np.arange(N), value, np.full(N, 1e-2))]
    worker.problem({"checks": [check], "rotate": 3 * 4 * N}, parts)
    worker.array({"key": "0", "align": 64, "cold": False}, [ramp().tobytes()])
    worker.array({"key": "1", "align": 64, "cold": True}, [(2 * ramp()).tobytes()])
    return worker


def forget(worker: Worker) -> None:
    """Free what the worker holds, while the driver is there."""
    worker.problem({"checks": [], "rotate": 0}, [])
    gc.collect()


def engine(program) -> bytes:
    p = program()
    x, w, y = p.input("x0", [4 * N], "u8"), p.input("x1", [4 * N], "u8"), p.output("y0", [4 * N], "u8")
    t = p.temp([N])
    p.segment(p.add(t, x, w, N), p.scale(y, t, 3, N))
    return p.raw()


def header(number: int) -> dict:
    return {"number": number, "inputs": {"x0": "0", "x1": "1"}, "lengths": {}}


def test_a_right_candidate_is_timed_with_its_constants_rotated(fake, program):
    worker = prepared()
    answer = worker.trial(header(0), [engine(program)])
    assert answer["status"] == "ok", answer
    worker.trial(header(1), [engine(program)])
    samples = worker.time({"numbers": [0, 1], "rounds": 3}, ())["samples"]
    assert {n: len(s) for n, s in samples.items()} == {"0": 3, "1": 3}
    assert [(t.sets, t.repeats % 3) for t in worker.timers.values()] == [(3, 0), (3, 0)], (
        "the constant has three places"
    )
    forget(worker)


def test_a_wrong_candidate_is_told_apart(fake, program):
    worker = prepared(scale=2.0)
    answer = worker.trial(header(0), [engine(program)])
    assert answer["status"] == "wrong"
    assert "the first at [1]" in answer["message"]
    forget(worker)


def test_what_is_not_written_shows(fake, program):
    worker = prepared()
    p = program()
    x = p.input("x0", [4 * N], "u8")
    w, y = p.input("x1", [4 * N], "u8"), p.output("y0", [4 * N], "u8")
    p.segment(p.add(y, x, w, N - 7))
    answer = worker.trial(header(0), [p.raw()])
    assert answer["status"] == "wrong"
    assert "two runs differ" in answer["message"]
    forget(worker)
