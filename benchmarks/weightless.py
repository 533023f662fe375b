# SPDX-License-Identifier: Apache-2.0
"""ONNX models without their weights: a few KB that any ONNX tool can read.

A weightless model is an ordinary ONNX model whose weights are graph inputs (name, type and shape, no data). Its
metadata says which inputs those are (`tcc.weights`, a JSON list of names) and holds constants that are no weights but
too large to keep as they are, attention masks and index tables, compressed (`tcc.packed`, JSON: name to base64 of
zlib of the tensor's protobuf bytes; these too are graph inputs). `benchmarks.filler` makes it a whole model again.
"""

import base64
import json
import zlib

import onnx
from onnx import TensorProto, helper

WEIGHTS = "tcc.weights"
PACKED = "tcc.packed"
LARGEST_KEPT = 64  # elements; a constant of no more than this stays an ordinary initialiser


def metadata(model: onnx.ModelProto, key: str) -> str | None:
    """The value of `key` in the model's metadata, or None."""
    return next((entry.value for entry in model.metadata_props if entry.key == key), None)


def strip(model: onnx.ModelProto, weights: set[str]) -> onnx.ModelProto:
    """`model` with the initialisers named in `weights` made inputs, and other large initialisers packed.

    Value infos, documentation strings and metadata of nodes are dropped: they are most of a weightless file and shape
    inference finds the former again.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    kept, names, packed = [], [], {}
    for tensor in graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        if tensor.name in weights:
            names.append(tensor.name)
        elif size > LARGEST_KEPT:
            packed[tensor.name] = base64.b64encode(zlib.compress(tensor.SerializeToString(), 9)).decode()
        else:
            kept.append(tensor)
            continue
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    kept = [copy_of(tensor) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    del out.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*graph.input, *graph.output]:
        del value.metadata_props[:]
    entries = {WEIGHTS: json.dumps(names)}
    if packed:
        entries[PACKED] = json.dumps(packed)
    helper.set_model_props(out, entries)
    return out


def copy_of(tensor: TensorProto) -> TensorProto:
    """A copy of `tensor` that outlives the list it stands in."""
    out = TensorProto()
    out.CopyFrom(tensor)
    return out


def weight_names(model: onnx.ModelProto) -> list[str] | None:
    """The names of a weightless model's weights, in order, or None if `model` is an ordinary model."""
    text = metadata(model, WEIGHTS)
    return None if text is None else json.loads(text)


def unpack(model: onnx.ModelProto) -> None:
    """Make the packed constants of a weightless model initialisers again, in place."""
    packed: dict[str, str] = json.loads(metadata(model, PACKED) or "{}")
    if not packed:
        return
    inputs = [value for value in model.graph.input if value.name not in packed]
    inputs = [helper.make_value_info(value.name, value.type) for value in inputs]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for data in packed.values():
        model.graph.initializer.append(TensorProto.FromString(zlib.decompress(base64.b64decode(data))))
