# SPDX-License-Identifier: Apache-2.0
"""Timing on the CPU: samples follow the work, results stay right, copies are really used."""

from collections.abc import Iterator

import numpy as np
import pytest

from tcc.compiler.engine_writer import to_bytes
from tcc.errors import FailureError, InputError
from tcc.runtime import load
from tcc.runtime.cpu import team
from tcc.runtime.cpu.timing import Timer
from tcc.runtime.timing import make_timer, time_engine, time_interleaved
from tests.runtime.cpu_engines import affine, affine_expected, content


@pytest.fixture(params=[1, 2], ids="{}-threads".format, autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = team.num_threads()
    team.set_num_threads(request.param)
    yield request.param
    team.set_num_threads(before)


def test_samples_follow_the_work(threads: int) -> None:
    small, large = load(to_bytes(affine(1000))), load(to_bytes(affine(64_000)))
    timers = [make_timer(e, [np.ones(e.inputs[0].shape, np.float32)]) for e in (small, large)]
    samples = time_interleaved(timers, 5)
    assert [len(s) for s in samples] == [5, 5]
    assert all(s > 0 for turn in samples for s in turn)
    if threads == 1:  # where threads meet, what else runs on the machine decides
        assert 4 * min(samples[0]) < min(samples[1])


def test_results_stay_right() -> None:
    engine = load(to_bytes(affine(1000)))
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    timer = Timer(engine, {"x0": x}, rotate_bytes=1 << 20)
    for held in timer._sets:
        for value in held.outputs:
            assert value is not None
            value.owner[:] = np.nan
    timer.sample()
    for held in timer._sets:
        for value in held.outputs:
            assert value is not None
            np.testing.assert_array_equal(value.owner, affine_expected(x))
    np.testing.assert_array_equal(timer.outputs()[0], affine_expected(x))


def test_copies_cover_the_bytes_to_rotate_over() -> None:
    engine = load(to_bytes(affine(1000)))
    x = [np.ones(1000, np.float32)]
    # A sample so long has several repeats on a busy machine too.
    alone, many = Timer(engine, x, seconds=0.2), Timer(engine, x, rotate_bytes=1 << 20)
    assert alone.sets == 1
    assert many.sets == -(-(1 << 20) // many._sets[0].nbytes) > 40
    assert many.repeats % many.sets == 0 and alone.repeats > 1
    assert len({held.table for held in many._sets}) == many.sets
    assert len({held._context.weights for held in many._sets}) == many.sets
    many.close()


def test_turns_rotate_the_inputs_named_and_nothing_else() -> None:
    engine = load(to_bytes(affine(1000)))
    x = [np.full(1000, k, np.float32) for k in range(3)]
    timer = Timer(engine, {"x0": x[0]}, turns=[{"x0": x[1]}, {"x0": x[2]}], seconds=1e-9)
    assert (timer.sets, timer.repeats) == (3, 1)
    seen = []
    for _ in range(6):
        timer.sample()
        (y,) = timer.outputs()
        seen.append(next(k for k in range(3) if np.array_equal(y, affine_expected(x[k]))))
    start = seen[0]
    assert seen == [(start + i) % 3 for i in range(6)], "samples go on where the one before ended"
    timer.close()
    with pytest.raises(InputError, match="turns of the input 'x0' differ"):
        Timer(engine, {"x0": x[0]}, turns=[{"x0": x[1][:-1]}])


def test_time_engine() -> None:
    engine = load(to_bytes(affine(1000)))
    samples = time_engine(engine, [np.ones(1000, np.float32)], rounds=3, seconds=1e-4)
    assert len(samples) == 3 and all(0 < s < 0.1 for s in samples)


def test_programs_are_refused() -> None:
    with pytest.raises(FailureError, match="cannot be timed as one segment"):
        make_timer(load(to_bytes(content([], []))), [])
