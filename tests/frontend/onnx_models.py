# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models for the frontend's tests, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tcc.compiler.frontend import import_onnx
from tcc.compiler.interpret import interpret
from tcc.ir import graph
from tcc.ir.module import ModuleOp
from tcc.ir.verifier import verify

F, I = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node


def make(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[Sequence[int | str | None], int]],
    outputs: Sequence[str],
    opset: int = 21,
    constants: dict[str, Any] | None = None,
    **kwargs: Any,
) -> onnx.ModelProto:
    """A model; inputs are name → (shape, element type)."""
    infos = [helper.make_tensor_value_info(n, t, s) for n, (s, t) in inputs.items()]
    outs = [onnx.ValueInfoProto(name=o) for o in outputs]
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    g = helper.make_graph(nodes, "g", infos, outs, held)
    imports = [helper.make_opsetid("", opset), *kwargs.pop("domains", [])]
    model = helper.make_model(g, opset_imports=imports, **kwargs)
    model.ir_version = 10 if opset > 12 else 6
    return model


def names(module: ModuleOp) -> list[str]:
    """Names of the ops of main, without constants and the end."""
    skipped = ("graph.constant", "graph.return")
    return [op.name for op in graph.main_function(module).block.ops if op.name not in skipped]


def peer(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime gives; it wants declared output types."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    inferred = onnx.shape_inference.infer_shapes(model)
    session = onnxruntime.InferenceSession(inferred.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def same_as_peer(model: onnx.ModelProto, feed: dict[str, np.ndarray], shapes: Any = None) -> ModuleOp:
    module = import_onnx(model, shapes)
    verify(module)
    got = interpret(module, feed)
    for name, want in zip([o.name for o in model.graph.output], peer(model, feed), strict=True):
        assert got[name].shape == want.shape
        assert got[name].dtype == want.dtype
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-5)
    return module
