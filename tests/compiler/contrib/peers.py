# SPDX-License-Identifier: Apache-2.0
"""One-node models of com.microsoft operators, and the comparison with ONNX Runtime's CPU kernels."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import tcc
from tcc.compiler.cli.tcc import main as tcc_main
from tcc.compiler.frontend import load_onnx
from tcc.compiler.interpret import interpret
from tcc.ir.verifier import verify
from tests.target import TARGET

Array = np.ndarray[Any, Any]
MS = "com.microsoft"
F32, F16, I32, I64, U8, I8 = (np.dtype(t) for t in (np.float32, np.float16, np.int32, np.int64, np.uint8, np.int8))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(seed: int, *shape: int, dtype: Any = np.float32) -> Array:
    """Normal numbers of unit variance."""
    return rng(seed).standard_normal(shape).astype(dtype)


def integers(seed: int, dtype: Any, *shape: int) -> Array:
    """Uniform over all of an integer type."""
    info = np.iinfo(dtype)
    return rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def element(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Any],
    constants: Mapping[str, Array],
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of the default domain and com.microsoft; inputs give their types and shapes, outputs are name → dtype."""
    graph = helper.make_graph(
        nodes,
        "contrib",
        [helper.make_tensor_value_info(k, element(v.dtype), v.shape) for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, element(v), None) for k, v in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def single(
    op: str,
    operands: Sequence[tuple[str, Array] | None],
    outputs: Sequence[Any],
    constants: Collection[str] = (),
    domain: str = MS,
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of one node and its inputs: an operand is (name, content) or absent, an output its dtype or None."""
    given = {name: np.asarray(a) for name, a in (o for o in operands if o is not None)}
    names = ["" if o is None else o[0] for o in operands]
    results = {f"y{i}": d for i, d in enumerate(outputs) if d is not None}
    node = helper.make_node(
        op, names, [f"y{i}" if d is not None else "" for i, d in enumerate(outputs)], "it", domain=domain, **attributes
    )
    feed = {k: v for k, v in given.items() if k not in constants}
    return model_of([node], feed, results, {k: given[k] for k in constants if k in given}), feed


def peer(model: onnx.ModelProto, feed: Mapping[str, Array], optimised: bool = False) -> dict[str, Array]:
    """What ONNX Runtime gives, with or without its graph optimisations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return {n: np.asarray(a) for n, a in zip(names, session.run(None, dict(feed)), strict=True)}


def compiled(model: onnx.ModelProto, feed: Mapping[str, Array], level: int = 1) -> dict[str, Array]:
    return dict(tcc.compile(model, target=TARGET, opt_level=level, search_seconds=0)(dict(feed)))


def on_gpu(model: Path) -> None:
    """Builds an engine for sm_86 beside the model file, without a GPU: NVRTC compiles every kernel. InputError and
    compile errors fail; so does a call to the host."""
    engine = model.with_suffix(".tcc")
    assert tcc_main([str(model), "-O1", "--target", "sm_86", "-o", str(engine)]) == 0
    with zipfile.ZipFile(engine) as z:
        manifest = json.loads(z.read("manifest.json"))
        assert any(name.endswith(".cubin") for name in z.namelist())
    assert "host_call" not in json.dumps(manifest["schedule"])


def close(mine: Mapping[str, Array], right: Mapping[str, Array], tolerance: float | None = None) -> None:
    """Floats within tolerance × max|right| (default 1e-4, for f16 4e-3); integers equal, but for at most 0.5 % of
    8-bit ones, which may be one quantum off where a quotient lies beside a rounding boundary."""
    assert list(mine) == list(right)
    for name, wanted in right.items():
        got = mine[name]
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), name
        if wanted.size == 0:
            continue
        error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        if wanted.dtype in (U8, I8):
            assert error.max() <= 1, f"{name} is off by {error.max()} quanta"
            assert (error > 0).mean() <= max(0.005, 1.5 / wanted.size), f"{name}: {(error > 0).mean():%} are off"
        elif wanted.dtype.kind in "iub":
            assert error.max() == 0, f"{name} is off by {error.max()}"
        else:
            assert np.isfinite(got.astype(np.float64)).all(), f"{name} is not finite"
            allowed = tolerance or (4e-3 if wanted.dtype == F16 else 1e-4)
            top = np.abs(wanted.astype(np.float64)).max()
            assert error.max() <= allowed * top, f"{name} is off by {error.max()} of {top}"


def same_as_peer(
    model: onnx.ModelProto, feed: Mapping[str, Array], tolerance: float | None = None, engine: bool = True
) -> None:
    """The graph as imported, in numpy, gives what ONNX Runtime gives; with `engine`, the compiled one too."""
    right = peer(model, feed)
    module = load_onnx(model).module
    verify(module)
    close(interpret(module, feed), right, tolerance)
    if engine:
        close(compiled(model, feed), right, tolerance)


def check(
    op: str,
    operands: Sequence[tuple[str, Array] | None],
    outputs: Sequence[Any],
    constants: Collection[str] = (),
    tolerance: float | None = None,
    engine: bool = True,
    **attributes: Any,
) -> None:
    """One node, against ONNX Runtime; without `engine`, as imported only."""
    model, feed = single(op, operands, outputs, constants, **attributes)
    same_as_peer(model, feed, tolerance, engine)
