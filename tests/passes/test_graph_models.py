# SPDX-License-Identifier: Apache-2.0
"""Whole models through the graph passes: how many kernels they become, and samples of what every kernel computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks import zoo
from tcc.compiler.frontend.importer import load_onnx
from tcc.compiler.interpret import _Machine
from tcc.compiler.phases.pipelines import pipelines
from tcc.ir import graph, kernel
from tcc.ir.core import Block, Op, Value
from tcc.ir.graph.function import main_function
from tcc.ir.kernel.evaluate import evaluate
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import TensorType
from tcc.passes.lower.to_kernel import _Lowering
from tcc.passes.manager import PassManager

Array = np.ndarray[Any, Any]

LAUNCHES = {
    "magika": 8, "ppocr_cls": 76, "ppocr_rec": 61, "ppocr_det_320x320": 85, "light_squeezenet": 32,
    "light_shufflenet": 60, "mobilenetv3_large_100": 82, "resnet50": 57, "vit_base_patch16_224": 89, "bert_base": 87,
    "light_densenet121": 184, "light_inception_v1": 76,
}  # fmt: skip
"""The most kernels that each model may become: fewer are welcome."""


def imported(name: str) -> ModuleOp:
    return load_onnx(zoo.load(name), zoo.shapes(name)).module


def run(module: ModuleOp, pipeline: str) -> None:
    PassManager(reproduce=False).run(module, pipeline)


class Everything(_Machine):
    """Keeps the array of every value it computes."""

    def __init__(self, function: graph.Func, inputs: Mapping[str, Array]) -> None:
        super().__init__(None)
        for name, arg in zip(function.arg_names, function.block.args, strict=True):
            self.bind(name, arg, inputs[name])
        super().run(function.block)


class Recording(_Lowering):
    """Remembers which launch gives which tensor of the graph."""

    made: list[tuple[Value, Value]]

    def lower(self, op: Op, block: Block) -> None:
        before = block.last
        super().lower(op, block)
        if not hasattr(self, "made"):
            self.made = []
        added = block.last
        while added is not None and added is not before:
            if isinstance(added, kernel.LaunchOp):
                self.made += zip(added.results, op.results, strict=True)
            added = added.prev_op


def check_kernels(module: ModuleOp, inputs: Mapping[str, Array], points: int) -> int:
    """Lowers a module after `fuse`, and compares samples of every kernel's results with the graph's, given the graph's
    own values as operands. The number of kernels looked at."""
    function = main_function(module)
    arrays = Everything(function, inputs).values
    lowering = Recording(module, function, Rewriter())
    lowering.run()
    known = {new: arrays[old] for old, new in lowering.values.items()}
    for result, old in lowering.made:
        t = result.type
        assert isinstance(t, TensorType)
        known[result] = arrays[old].reshape(t.static_shape)
    funcs = {f.sym_name: f for f in module.ops if isinstance(f, kernel.Func)}
    host = next(op for op in module.ops if isinstance(op, kernel.Host))
    count = 0
    for op in host.walk():
        if isinstance(op, kernel.ViewOp) and op.y not in known:
            t = op.y.type
            assert isinstance(t, TensorType)
            size = int(np.prod(t.static_shape, dtype=np.int64))
            flat = np.ascontiguousarray(known[op.x]).reshape(-1)
            known[op.y] = flat[op.offset : op.offset + size].reshape(t.static_shape)
        if not isinstance(op, kernel.LaunchOp):
            continue
        count += 1
        func = funcs[op.callee]
        expected = evaluate(func, [known[v] for v in op.operands], points)
        for e, r in zip(expected, op.results, strict=True):
            got = known[r][e.index].astype(np.float64)
            size = max(1e-6, float(np.abs(e.value).max(initial=0)))
            off = np.abs(got - e.value) - 16 * e.allowance - 1e-5 * size
            assert not (off > 0).any(), f"@{func.sym_name} ({', '.join(func.loc[:3])}) is off by {off.max()}"
    return count


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHES)
def test_models_become_so_many_kernels(name: str) -> None:
    module = imported(name)
    run(module, pipelines("graph", "fuse", 1, "f32"))
    if name in ("resnet50", "vit_base_patch16_224", "bert_base", "light_densenet121", "light_inception_v1"):
        run(module, "lower-to-kernel")
        launches = sum(isinstance(op, kernel.LaunchOp) for op in module.walk())
    else:
        launches = check_kernels(module, zoo.inputs(name), 200)
    assert launches <= LAUNCHES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["magika", "ppocr_rec", "light_shufflenet"])
def test_models_keep_their_answers(name: str) -> None:
    module = imported(name)
    x = zoo.inputs(name)
    function = main_function(module)
    before = Everything(function, x).values
    want = [before[v] for v in function.returned]
    run(module, pipelines("graph", "fuse", 1, "f32"))
    function = main_function(module)
    after = Everything(function, x).values
    for v, w in zip(function.returned, want, strict=True):
        np.testing.assert_allclose(after[v], w, rtol=1e-3, atol=1e-4 * float(np.abs(w).max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppocr_rec", "mobilenetv3_large_100"])
@pytest.mark.parametrize("precision", ["f16", "bf16", "tf32"])
def test_models_lower_in_other_precisions(name: str, precision: str) -> None:
    module = imported(name)
    run(module, pipelines("graph", "kernel", 1, precision))
    products = [f.anchor for f in module.ops if isinstance(f, kernel.Func) and f.anchor.name.split(".")[1] in
                ("conv", "matmul", "attention")]  # fmt: skip
    if precision == "tf32":
        assert all(a.allow == ("tf32",) for a in products)
    else:
        assert all(t.type.dtype.name == precision for a in products for t in a.operands[:2])
