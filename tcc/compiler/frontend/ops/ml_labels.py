# SPDX-License-Identifier: Apache-2.0
"""ai.onnx.ml operators on labels: tables of numbers become comparisons, tables of strings calls of the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.compiler.frontend.formula import Formula
from tcc.compiler.frontend.node import Array, Node
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.sequence import host_value
from tcc.compiler.frontend.tensors import to_array
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.types import F32, I64, STRING, MapType, ScalarType, SequenceType, dtype_of

ML = "ai.onnx.ml"
_COMPARED = 1024
"""Tables of numbers with more keys are searched by halves, not compared with each key."""

_NUMPY: dict[str, Any] = {"int64s": np.int64, "floats": np.float32, "strings": object}
_DEFAULTS: dict[str, Any] = {"int64s": -1, "floats": -0.0, "strings": "_Unused"}


@onnx_op("LabelEncoder", domain=ML)
def label_encoder(n: Node) -> Value:
    """keys and values of int64s, floats, strings (opset 2) or a tensor (4); in opset 1 the places of class names."""
    if n.opset < 2:
        names = _texts(n.attr("classes_strings"))
        return _both_ways(n, names, np.arange(names.size, dtype=np.int64))
    keys, _ = _listed(n, "keys")
    values, kind = _listed(n, "values")
    if n.has("default_tensor"):
        default = to_array(n.attr("default_tensor"), n.importer.model.folder, "its default").reshape(-1)[:1]
    elif kind == "tensor":
        given = values.dtype.kind
        name = "string" if given == "O" else "float" if given == "f" else "int64"
        default = _filled(n.attr(f"default_{name}", _DEFAULTS[f"{name}s"]), values.dtype)
    else:
        default = _filled(n.attr(f"default_{kind[:-1]}", _DEFAULTS[kind]), values.dtype)
    if n.opset < 4 and keys.dtype.kind == "f" and keys.size == values.size:
        found = ~np.isnan(keys)  # NaN equals itself since opset 4
        keys, values = keys[found], values[found]
    return lookup(n, n.input(0), keys, values, default)


@onnx_op("CategoryMapper", domain=ML)
def category_mapper(n: Node) -> Value:
    return _both_ways(n, _texts(n.attr("cats_strings")), np.asarray(n.attr("cats_int64s"), np.int64))


@onnx_op("ZipMap", domain=ML)
def zip_map(n: Node) -> Value:
    """A sequence of maps from class labels to the numbers of a row."""
    x, labels = n.input(0), label_count(n)
    if n.rank(x) not in (1, 2) or (isinstance(n.shape(x)[-1], int) and n.shape(x)[-1] != labels):
        raise InputError(f"its operand is {n.type(x)}, and its labels are {labels}")
    for kind in ("int64s", "ints"):
        if n.attr(f"classlabels_{kind}", None):
            keys, dtype = n.constant(n.attr(f"classlabels_{kind}"), I64), I64
            break
    else:
        keys, dtype = n.builder.constant(_texts(n.attr("classlabels_strings")), graph.dense((labels,), STRING)), STRING
    result = SequenceType(MapType(ScalarType(dtype), ScalarType(n.dtype(x))))
    return host_value(n.importer, "zip_map", [x, keys], result, "its result is a sequence of maps")


def _both_ways(n: Node, names: Array, codes: Array) -> Value:
    """Names to codes, or codes to names, as the operand is."""
    if n.dtype(n.input(0)) is STRING:
        return lookup(n, n.input(0), names, codes, _filled(n.attr("default_int64", -1), np.int64))
    return lookup(n, n.input(0), codes, names, _filled(n.attr("default_string", "_Unused"), object))


def _filled(value: Any, dtype: Any) -> Array:
    out = np.empty(1, dtype)
    out[0] = value
    return out


def _texts(values: list[str]) -> Array:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def _listed(n: Node, what: str) -> tuple[Array, str]:
    """The keys or values of a table, and the kind of the attribute that has them."""
    if n.has(f"{what}_tensor"):
        return to_array(n.attr(f"{what}_tensor"), n.importer.model.folder, f"its {what}").reshape(-1), "tensor"
    for kind, dtype in _NUMPY.items():
        if n.has(f"{what}_{kind}"):
            found = n.attr(f"{what}_{kind}")
            return (_texts(found) if dtype is object else np.asarray(found, dtype)), kind
    raise InputError(f"it has no {what}")


def lookup(n: Node, x: Value, keys: Array, values: Array, default: Array) -> Value:
    """values[i] where x equals keys[i], else the default."""
    if keys.size != values.size:
        raise InputError(f"it has {keys.size} keys and {values.size} values")
    if dtype_of(keys) != n.dtype(x):
        raise InputError(f"its keys are {dtype_of(keys)} and its operand is {n.dtype(x)}")
    result = graph.dense(n.shape(x), dtype_of(values))
    if keys.dtype == object or values.dtype == object:
        table = [n.builder.constant(a, graph.dense(a.shape, dtype_of(a))) for a in (keys, values, default)]
        return host_value(n.importer, "label_encoder", [x, *table], result, "its labels are strings")
    if keys.size == 0:
        return n.op(graph.Expand, n.constant(default.reshape(())), shape=n.shape(x))
    if keys.size > _COMPARED:
        return _searched(n, x, keys, values, default)
    # The first key that matches: the largest of the places counted from the end, 0 where none does.
    hit = matches(n, x, keys)
    counted = n.constant(np.arange(keys.size, 0, -1, dtype=np.int64))
    found = n.op(graph.Where, hit, counted, n.constant(0, I64))
    place = n.op(graph.Reduce, found, kind="max", axes=(len(n.shape(x)),), keepdims=False)
    return n.op(graph.Gather, n.constant(np.concatenate([default, values[::-1]])), place, axis=0)


def _searched(n: Node, x: Value, keys: Array, values: Array, default: Array) -> Value:
    """A binary search: the place of the last key that is not greater, in steps of falling powers of two."""
    f = Formula(n)
    ordered, first = np.unique(keys, return_index=True)
    if keys.dtype.kind == "f":
        ordered, first = ordered[ordered == ordered], first[ordered == ordered]
    table = n.constant(ordered)
    place = f.expand(n.constant(0, I64), n.shape(x))
    for bit in reversed(range(int(ordered.size - 1).bit_length())):
        further = f.add(place, 1 << bit)
        inside = f.less(further, int(ordered.size))
        key = n.op(graph.Gather, table, f.clamp(further, 0, int(ordered.size) - 1), axis=0)
        place = f.where(f.both(inside, f.at_most(key, x)), further, place)
    hit = f.equal(n.op(graph.Gather, table, place, axis=0), x)
    found = n.op(graph.Gather, n.constant(values[first]), place, axis=0)
    y = f.where(hit, found, n.constant(default.reshape(())))
    nan = values[np.isnan(keys)] if keys.dtype.kind == "f" else values[:0]
    return f.where(n.op(graph.IsNan, x), n.constant(nan[0]), y) if nan.size else y


def matches(n: Node, x: Value, keys: Array) -> Value:
    """Whether x equals each key, along a new last dim; NaN equals NaN."""
    column = n.reshape(x, (*n.shape(x), 1))
    hit = n.op(graph.Equal, column, n.constant(keys))
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        hit = n.op(graph.Or, hit, n.op(graph.And, n.op(graph.IsNan, column), n.constant(np.isnan(keys))))
    return hit


def labelled(n: Node, places: Value, domain: str = "classlabels") -> Value:
    """The class labels at int64 places: numbers by a gather, strings on the host."""
    for kind in ("int64s", "ints"):
        if n.attr(f"{domain}_{kind}", None):
            return n.op(graph.Gather, n.constant(n.attr(f"{domain}_{kind}"), I64), places, axis=0)
    names = n.builder.constant(
        _texts(n.attr(f"{domain}_strings")), graph.dense((len(n.attr(f"{domain}_strings")),), STRING)
    )
    result = graph.dense(n.shape(places), STRING)
    return host_value(n.importer, "gather", [names, places], result, "its class labels are strings", axis=0)


def label_count(n: Node, domain: str = "classlabels") -> int:
    """How many class labels a classifier has."""
    return max((len(n.attr(f"{domain}_{kind}", None) or ()) for kind in ("int64s", "ints", "strings")), default=0)


@onnx_op("OneHotEncoder", domain=ML)
def one_hot_encoder(n: Node) -> Value:
    """1 where x is the category, along a new last dim. What is no category has no 1, also where `zeros` is 0: that asks
    for an error which only the data could raise."""
    x = n.input(0)
    if n.has("cats_strings"):
        cats = _texts(n.attr("cats_strings"))
        places = lookup(n, x, cats, np.arange(cats.size, dtype=np.int64), np.array([-1], np.int64))
        return n.cast(matches(n, places, np.arange(cats.size, dtype=np.int64)), F32)
    codes = np.asarray(n.attr("cats_int64s"), np.int64)
    return n.cast(matches(n, n.cast(x, I64), codes), F32)
