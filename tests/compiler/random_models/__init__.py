# SPDX-License-Identifier: Apache-2.0
"""Random ONNX models of the kinds that exporters make: convolutional nets of rank 1 to 3 and transformers, with odd
shapes and all the attributes. A seed decides a model and its inputs; a step that does not fit is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from tests.compiler.random_models.cnn import CNN
from tests.compiler.random_models.common import COMMON
from tests.compiler.random_models.gen import Gen, Model, Refused, Step
from tests.compiler.random_models.transformer import TRANSFORMER

__all__ = ["Model", "cnn", "random_model", "transformer"]


def _grow(g: Gen, x: str, steps: Sequence[tuple[Step, int]], rank: int, size: int) -> None:
    """Add steps to the stream that begins at x until the graph has `size` nodes."""
    functions = [s for s, weight in steps for _ in range(weight)]
    stream = [x]
    g.alive.append(x)
    for _ in range(6 * size):
        if len(g.nodes) >= size:
            break
        at = g.pick(stream[-2:]) if g.chance(0.8) else g.pick(stream)
        before = len(g.nodes), list(g.alive)
        try:
            y = g.pick(functions)(g, at)
        except Refused:
            # What the step had made before it did not fit goes; names are not used again.
            del g.nodes[before[0] :]
            g.alive = before[1]
            continue
        if y is not None:
            g.alive.append(y)
            if len(g.shape(y)) == rank:
                stream.append(y)


def _end(g: Gen) -> Model:
    """The graph with what nothing reads as outputs, and at times an input, a constant and values twice."""
    read = {i for n in g.nodes for i in n.input}
    outer = {i for n in g.nodes for a in n.attribute for b in a.g.node for i in b.input}
    ends = [o for n in g.nodes for o in n.output if o not in read and o not in outer]
    ends = ends[-6:]
    made = [o for n in g.nodes for o in n.output]
    if g.chance(0.2):
        ends.append(g.pick(made))
    if g.chance(0.15):
        ends.append(ends[0])
    if g.chance(0.15):
        ends.append(g.pick(list(g.inputs)))
    if g.chance(0.1) and g.held:
        ends.append(g.pick(list(g.held)))
    return g.finish(ends)


def cnn(seed: int, size: int = 18) -> Model:
    """A convolutional net on [n, c, space...]."""
    g = Gen(seed)
    space = {1: (g.pick([7, 16, 33]),), 2: tuple(g.ints(4, 19, 2)), 3: tuple(g.ints(3, 7, 3))}
    rank = g.pick([1, 2, 2, 2, 2, 3])
    n = g.pick([1, 1, 2, 3])
    x = g.input(g.normal(n, g.pick([1, 3, 4, 8, 13]), *space[rank]))
    if g.chance(0.2):
        g.alive.append(g.input(g.normal(*g.shape(x))))
    _grow(g, x, CNN + COMMON, rank + 2, size)
    return _end(g)


def transformer(seed: int, size: int = 36) -> Model:
    """An encoder on tokens or on vectors."""
    g = Gen(seed)
    n, t, w = g.pick([1, 1, 2, 3]), g.pick([1, 5, 8, 13, 17]), g.pick([6, 12, 16, 20, 24])
    if g.chance(0.4):
        ids = g.input(g.rng.integers(0, 19, (n, t)).astype(np.int64))
        x = g("Gather", g.const(g.normal(19, w)), ids)
        x = g("Add", x, g.const(g.normal(t, w)))
    else:
        x = g.input(g.normal(n, t, w))
    _grow(g, x, TRANSFORMER * 2 + COMMON, 3, size)
    return _end(g)


def random_model(seed: int) -> Model:
    """Convolutional nets on even seeds, transformers on odd ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cnn(seed) if seed % 2 == 0 else transformer(seed)
