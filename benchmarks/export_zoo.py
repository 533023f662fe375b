# SPDX-License-Identifier: Apache-2.0
# pyright: reportMissingImports=false
"""Export the zoo's PyTorch networks to weightless ONNX files: `python -m benchmarks.export_zoo [NAME...] [-o
FOLDER]`.

Needs torch, timm, transformers and onnxscript (not tcc's dependencies). The batch stays a free dim. Nothing that
touches a weight is folded: batch norms stay, and every initialiser that is a weight bears its parameter's name, so a
PyTorch module can be given the same values (`torch_models.load_weights`); the script fails where that does not hold.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

import onnx
import torch
from onnx_ir import passes
from onnx_ir.passes import common
from onnxscript import rewriter
from onnxscript.optimizer._constant_folding import FoldConstantsPass
from onnxscript.rewriter.rules.common import _fuse_batchnorm

from benchmarks.torch_models import LANGUAGE, VISION, Network, network
from benchmarks.weightless import strip, weight_names

FOLDER = Path(__file__).resolve().parent / "models"
OPSET = 18


def distinct(net: Network) -> None:
    """Give every parameter and saved buffer random values, so that no exporter takes two for one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in net.module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)


def export(net: Network) -> onnx.ModelProto:
    """The network as ONNX with its weights, batch free.

    These are the steps of the exporter's own optimiser, less the folding of weights: no batch norm goes into a
    convolution (that is the compiler's work) and no weight is transposed into another.
    """
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.onnx.export(
        net.module,
        net.example,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(net.inputs),
        output_names=list(net.outputs),
        dynamic_shapes=tuple({0: batch} for _ in net.example),
        optimize=False,
        verbose=False,
    )
    assert program is not None
    weights = set(net.module.state_dict())
    rules = [rule for rule in rewriter._DEFAULT_REWRITE_RULES if rule not in set(_fuse_batchnorm.rules)]
    fold = FoldConstantsPass(
        shape_inference=True,
        input_size_limit=1 << 12,
        output_size_limit=1 << 20,
        should_fold=lambda node: False if touches(node, weights) else None,
    )
    passes.Sequential(
        common.InlinePass(),
        passes.PassManager([fold, rewriter.RewritePass(rules), common.RemoveUnusedNodesPass()], steps=3),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
    )(program.model)
    return program.model_proto


def touches(node: object, weights: set[str]) -> bool:
    """Whether an input of the IR node is a weight."""
    return any(value is not None and value.name in weights for value in node.inputs)  # type: ignore[attr-defined]


def checked(net: Network, model: onnx.ModelProto) -> set[str]:
    """The weights' names. Fails if a parameter is missing, renamed or reshaped."""
    state = {name: tensor for name, tensor in net.module.state_dict().items() if tensor.is_floating_point()}
    found = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    tied: dict[int, list[str]] = {}
    for name, tensor in net.module.state_dict(keep_vars=True).items():
        tied.setdefault(tensor.data_ptr(), []).append(name)
    for names in tied.values():
        names = [name for name in names if name in state]
        if names and not any(found.get(name) == tuple(state[name].shape) for name in names):
            sys.exit(f"{net.name}: parameter {names[0]} {tuple(state[names[0]].shape)} is no initialiser of the export")
    return {name for name in found if name in state}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks to export (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names or [*VISION, *LANGUAGE]:
        start = time.perf_counter()
        net = network(name)
        distinct(net)
        model = export(net)
        model.producer_name, model.graph.name = "benchmarks.export_zoo", name
        small = strip(model, checked(net, model))
        onnx.checker.check_model(small)
        path = options.output / f"{name}.onnx"
        part = path.with_suffix(".part")
        part.write_bytes(small.SerializeToString(deterministic=True))
        os.replace(part, path)
        print(
            f"{name}: {len(small.graph.node)} nodes, {len(weight_names(small) or [])} weights, "
            f"{path.stat().st_size:,} bytes, {time.perf_counter() - start:.1f} s"
        )


if __name__ == "__main__":
    main()
