# SPDX-License-Identifier: Apache-2.0
"""The GPU timer on the fake driver: what it launches, in which order, over which buffers."""

import gc

import numpy as np
import pytest

from tcc.errors import FailureError
from tcc.runtime.cuda import nvml
from tcc.runtime.cuda.device import current_gpu
from tcc.runtime.cuda.timing import MAX_NODES, Timer, time_engine, time_interleaved
from tests.runtime.cuda.cases import N, affine, branching, ramp


def test_buffers_rotate_and_repeats_are_ordered(fake, program):
    engine = affine(program, pdl=True)
    one = 2 * 4000 + 2 * 4096  # input and output; weights and arena, padded
    timer = Timer(engine, {"x": ramp()}, rotate_bytes=5 * one - 1000, seconds=0.5)
    assert timer.sets == 5
    assert timer.repeats % 5 == 0
    assert timer.repeats > 5
    nodes = fake.nodes()
    assert len(nodes) == 2 * timer.repeats <= MAX_NODES
    assert [node.after for node in nodes] == [[i - 1] if i else [] for i in range(len(nodes))]
    assert all(edge == (1, 1) for node in nodes[1::2] for edge in node.edges), "pdl launches start early"
    sources = [bytes(node.params[1]) for node in nodes[::2]]
    weights = [bytes(node.params[2]) for node in nodes[::2]]
    for pointers in (sources, weights, [bytes(node.params[0]) for node in nodes[1::2]]):
        assert len(set(pointers)) == 5
        assert pointers[:5] == pointers[5:10]
    fake.launches.clear()
    sample = timer.sample()
    assert sample > 0
    assert len(fake.launches) == len(nodes)
    timer.close()
    del engine, timer
    gc.collect()
    assert fake.live == {}


def test_turns_rotate_the_inputs_named_and_nothing_else(fake, program):
    p = program()
    x, w, y = p.input("x", [N]), p.input("w", [N]), p.output("y", [N])
    t = p.temp([N])
    p.segment(p.scale(t, x, 2, N), p.scale(y, w, 3, N))
    turns = [{"w": ramp() + k} for k in (1, 2)]
    timer = Timer(p.engine(), {"x": ramp(), "w": ramp()}, turns=turns, seconds=1e-9)
    assert (timer.sets, timer.repeats) == (3, 3)
    nodes = fake.nodes()
    assert len({bytes(node.params[1]) for node in nodes[::2]}) == 1, "x stays where it is"
    assert len({bytes(node.params[1]) for node in nodes[1::2]}) == 3, "w is rotated"
    assert len({bytes(node.params[0]) for node in nodes[1::2]}) == 1, "all write one output"
    assert timer.sample() > 0
    timer.close()
    del timer, p
    gc.collect()


def test_a_profile_is_one_graph_and_its_calibration_is_kept(fake, program):
    p = program()
    x, t, y = p.input("x", [N]), p.temp([N]), p.output("y", [N])
    p.segment(p.scale(t, x, 2, N), p.bump(t, 1, N), p.scale(y, t, 3, N))
    engine = p.engine()
    for graphs in (3, 1):
        before = fake.instantiated
        rows = engine.profile([ramp()])
        assert [(row.name, row.op) for row in rows] == [("scale", "launch"), ("bump", "launch"), ("scale", "launch")]
        assert fake.instantiated - before == graphs
        # The fake's clock ticks at every event, so nearly all of a tick is the event's.
        assert all(0 <= row.seconds < 0.1e-6 for row in rows)


def test_repeats_fill_the_time_asked_for(fake, program):
    engine = affine(program)
    short = Timer(engine, [ramp()], seconds=1e-9)
    assert (short.sets, short.repeats) == (1, 1)
    long = Timer(engine, [ramp()], seconds=100)
    assert long.repeats == MAX_NODES // 2
    rows = time_interleaved([short, long], 4)
    assert [len(row) for row in rows] == [4, 4]
    short.close()
    long.close()


def test_parallel_ops_join_before_the_next_repeat(fake, program):
    p = program()
    x, y, z = p.input("x", [N]), p.output("y", [N]), p.output("z", [N])
    p.segment(p.scale(y, x, 2, N), p.scale(z, x, 3, N))
    timer = Timer(p.engine(), [ramp()], rotate_bytes=3 * 3 * 4000 - 1, seconds=1e-9)
    assert timer.repeats == 3
    assert [node.after for node in fake.nodes()] == [[], [], [0, 1], [0, 1], [2, 3], [2, 3]]
    timer.close()


def test_samples_and_refusals(fake, program):
    assert len(time_engine(affine(program), [ramp()], rounds=3)) == 3
    with pytest.raises(FailureError, match="whose schedule has 'if'"):
        time_engine(branching(program), [ramp()])


def test_state_is_none_or_plausible(fake):
    state = nvml.state(current_gpu().device)
    assert state is None or (state.sm_clock > 0 and np.isfinite(state.temperature))
