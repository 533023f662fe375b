# SPDX-License-Identifier: Apache-2.0
"""Engines whose parts do not fit together are not written."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tcc.compiler.engine_writer import EngineContent, to_bytes
from tests.runtime.cpu_engines import affine, tensor

# In `affine`: buffer 0 is the input, 1 the output, 2 the weight, 3 and 4 in the arena.
Change = Callable[[EngineContent], Any]


def _op(c: EngineContent, index: int = 0) -> dict[str, Any]:
    return c.schedule[0]["body"][index]


CASES: list[tuple[Change, str]] = [
    (lambda c: _op(c).update(kernel="k_lost"), "launches the kernel k_lost, which the engine does not hold"),
    (lambda c: _op(c).update(reads=[99]), "names buffer 99, and there are 5"),
    (lambda c: _op(c).update(reads=[0]), "given buffer 2 and lists it neither as read nor as written"),
    (lambda c: _op(c).update(writes=[0]), "writes buffer 0, which is in the space input"),
    (lambda c: _op(c).update(tasks=["add", "n", 1]), "of node_k_affine uses the symbol 'n', which the engine"),
    (lambda c: _op(c)["params"].append({"scalar": "m", "dtype": "i64"}), "uses the symbol 'm'"),
    (lambda c: c.schedule.append(_op(c)), "the op launch stands outside a segment"),
    (lambda c: c.schedule[0]["body"].append({"op": "alloc", "buffer": 3}), "the op alloc stands inside a segment"),
    (lambda c: c.schedule.append(c.schedule[0]), "two segments are named 'segment_0'"),
    (lambda c: c.buffers[3].update(offset=8), "buffer 3 starts at 8 in the arena, which is no multiple of 64"),
    (lambda c: c.arena.update(bytes=64), "buffer 3 ends at 4000, past the 64 bytes of the arena"),
    (lambda c: c.buffers[2].update(bytes=10**6), "buffer 2 is larger than the weight w0"),
    (lambda c: c.buffers[2].update(offset=256), "another offset than the weights file"),
    (lambda c: c.buffers[1].update(position=1), "buffer 1 is output 1 of 1"),
    (lambda c: c.buffers[0].update(shape=[999]), "input 'x0' and its buffer 0 differ in dtype or shape"),
    (lambda c: c.inputs[0].update(buffer=3), "input 'x0' has buffer 3 in the space arena"),
    (lambda c: c.outputs.append(c.outputs[0]), "two outputs have the same name"),
    (lambda c: c.outputs.append({**c.outputs[0], "name": "z"}), "output 'z' is at position 1 and its buffer says 0"),
    (lambda c: c.buffers.append(tensor("view", [1], of=9, offset=0)), "buffer 5 names buffer 9"),
    (
        lambda c: c.buffers.extend([tensor("view", [1], of=0, offset=0), tensor("view", [1], of=5, offset=0)]),
        "buffer 6 is a view of buffer 5, which is a view too",
    ),
    (lambda c: c.buffers.append(tensor("attic", [1])), "a space 'attic' that the format does not have"),
    (lambda c: c.kernels["k_add"]["files"].update(binary="kernels/lost.o"), "names the file 'kernels/lost.o'"),
    (
        lambda c: c.schedule[0]["body"].append(
            {"op": "copy", "src": {"buffer": 3}, "dst": {"buffer": 2}, "bytes": 4}
        ),
        "writes buffer 2, which is in the space weight",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CASES, ids=range(len(CASES)))
def test_mistakes_are_found(change: Change, message: str) -> None:
    content = affine()
    to_bytes(content)
    change(content)
    with pytest.raises(ValueError, match=message):
        to_bytes(content)


def test_weight_must_exist() -> None:
    content = affine()
    content.weights = (np.zeros(3, np.float32),)
    with pytest.raises(ValueError, match="or there is no such weight"):
        to_bytes(content)
