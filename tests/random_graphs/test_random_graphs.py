# SPDX-License-Identifier: Apache-2.0
"""A hundred random graphs at -O0 and -O3 with random configs, against ONNX Runtime; thousands are
`python -m tests.random_graphs`.
"""

from __future__ import annotations

import onnx
import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from tests.random_graphs import STEPS, graphs, seeded
from tests.random_graphs.check import check
from tests.random_graphs.gen import Model

PARTS = 5


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_random_graphs(part: int) -> None:
    @given(graphs(), st.integers(0, 2**16))
    def holds(model: Model, config: int) -> None:
        outcome = check(model, config)
        if outcome.verdict not in ("pass", "invalid"):
            note(onnx.printer.to_text(model.proto))
        assert outcome.verdict in ("pass", "invalid"), outcome.message

    every = settings(suppress_health_check=list(HealthCheck), deadline=None)
    if settings.default is not None and settings.default.derandomize:
        # The first example of a run is the simplest graph.
        holds = seed(part)(settings(every, max_examples=100 // PARTS + 1)(holds))
    else:
        holds = settings(every, max_examples=settings().max_examples // PARTS)(holds)
    holds()


def test_a_seed_is_always_the_same_graph() -> None:
    a, b = seeded(3), seeded(3)
    assert a.proto.SerializeToString() == b.proto.SerializeToString()
    assert all((a.inputs[n] == b.inputs[n]).all() for n in a.inputs)


def test_graphs_are_valid_and_of_many_ops() -> None:
    ops: set[str] = set()
    opsets: set[int] = set()
    for number in range(150):
        proto = seeded(number).proto
        onnx.checker.check_model(proto, full_check=True)
        ops |= {n.op_type for n in proto.graph.node}
        opsets.add(proto.opset_import[0].version)
    assert len(ops) > 80 and {"If", "Loop", "Scan"} <= ops
    assert opsets >= set(range(13, 27))
    assert len(STEPS) > 50
