# SPDX-License-Identifier: Apache-2.0
"""The constants that a model file holds, by content: what a resumed dump finds there again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from tcc.compiler.frontend.model import Source, read_model
from tcc.compiler.frontend.survey import subgraphs
from tcc.compiler.frontend.tensors import Array, sparse_to_array, to_array
from tcc.ir.resources import ResourceStore


def read_constants(source: Source) -> ResourceStore:
    """Every initialiser and Constant value of a model, without importing it; InputError if the model is damaged."""
    model = read_model(source)
    store = ResourceStore()
    for array in _graph(model.proto.graph, model.folder):
        store.add(array)
    for function in model.proto.functions:
        for node in function.node:
            for array in _node(node, model.folder):
                store.add(array)
    return store


def _graph(graph: onnx.GraphProto, folder: Path | None) -> Iterator[Array]:
    for tensor in graph.initializer:
        yield to_array(tensor, folder)
    for sparse in graph.sparse_initializer:
        yield sparse_to_array(sparse, folder)
    for node in graph.node:
        yield from _node(node, folder)


def _node(node: onnx.NodeProto, folder: Path | None) -> Iterator[Array]:
    if node.op_type == "Constant":
        for a in node.attribute:
            if a.HasField("t"):
                yield to_array(a.t, folder, f'the value of "{node.name}"')
    for g in subgraphs(node):
        yield from _graph(g, folder)
