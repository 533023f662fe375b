# SPDX-License-Identifier: Apache-2.0
"""ai.onnx.ml tree ensembles: every row walks all trees at once, one level a step, by gathers and comparisons.

A leaf is a node that leads to itself, so a walk of as many steps as the deepest tree has levels ends at every leaf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.compiler.frontend.node import Array, Node
from tcc.compiler.frontend.ops.ml import largest, transformed, two
from tcc.compiler.frontend.ops.ml_labels import ML, label_count, labelled
from tcc.compiler.frontend.registry import onnx_op
from tcc.compiler.frontend.tensors import to_array
from tcc.errors import InputError
from tcc.ir import graph
from tcc.ir.core import Op, Value
from tcc.ir.types import F32, I64

_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF")
_MEMBER, _LEAF = 6, 7
_COMPARE: tuple[type[Op], ...] = (graph.LessEqual, graph.Less, graph.GreaterEqual, graph.Greater, graph.Equal)
_MOST_LEVELS = 256


@dataclass
class Forest:
    """Nodes of all trees by number. `members` [node, k]: the sets of the nodes that test membership, padded with NaN.

    `weights` [node, target] with `counted` telling which targets a leaf speaks of.
    """

    roots: Array
    mode: Array
    feature: Array
    value: Array
    yes: Array
    no: Array
    missing: Array
    weights: Array
    counted: Array
    members: Array | None = None

    def levels(self) -> int:
        """The most steps from a root to a leaf; InputError if there is a circle."""
        seen, here = 0, np.unique(self.roots)
        while (self.mode[here] != _LEAF).any():
            inner = here[self.mode[here] != _LEAF]
            here = np.unique(np.concatenate([self.yes[inner], self.no[inner]]))
            seen += 1
            if seen > min(_MOST_LEVELS, self.mode.size):
                raise InputError(f"its trees have more than {_MOST_LEVELS} levels, or nodes in a circle")
        return seen


def _walk(n: Node, x: Value, forest: Forest) -> Value:
    """The leaf of each row in each tree, int64 [rows, trees]."""
    rows, trees = n.shape(x)[0], forest.roots.size
    dtype = n.dtype(x)
    tests = sorted({int(m) for m in forest.mode} - {_LEAF})

    def of(table: Array, at: Value) -> Value:
        return n.op(graph.Gather, n.constant(table), at, axis=0)

    at = n.op(graph.Expand, n.constant(forest.roots), shape=(rows, trees))
    for _ in range(forest.levels()):
        v = n.op(graph.GatherElements, x, of(forest.feature, at), axis=1)
        limit = of(forest.value.astype(dtype.numpy), at)
        taken: Value | None = None
        for test in tests:
            hit = _test(n, test, v, limit, forest, at)
            if taken is None:
                taken = hit
            else:
                taken = n.op(graph.Where, of(forest.mode == test, at), hit, taken)
        assert taken is not None
        if forest.missing.any():
            taken = n.op(graph.Or, taken, n.op(graph.And, n.op(graph.IsNan, v), of(forest.missing, at)))
        at = n.op(graph.Where, taken, of(forest.yes, at), of(forest.no, at))
    return at


def _test(n: Node, test: int, v: Value, limit: Value, forest: Forest, at: Value) -> Value:
    if test == _MEMBER:
        assert forest.members is not None
        sets = n.op(graph.Gather, n.constant(forest.members.astype(n.dtype(v).numpy)), at, axis=0)
        hit = n.cast(n.op(graph.Equal, n.reshape(v, (*n.shape(v), 1)), sets), F32)
        any_of = n.op(graph.Reduce, hit, kind="max", axes=(2,), keepdims=False)
        return n.op(graph.Greater, any_of, n.like(0, any_of))
    if test == _MODES.index("BRANCH_NEQ"):
        return n.op(graph.Not, n.op(graph.Equal, v, limit))
    return n.op(_COMPARE[test], v, limit)


def _scores(n: Node, forest: Forest, aggregate: str) -> Value:
    """What the leaves say, put together over the trees: [rows, targets] in the type of the weights."""
    x = n.input(0)
    x = x if n.dtype(x).is_float else n.cast(x, F32)
    x = x if n.rank(x) == 2 else n.reshape(x, (1, n.type(x).size))
    at = _walk(n, x, forest)
    said = n.op(graph.Gather, n.constant(forest.weights), at, axis=0)
    if aggregate in ("SUM", "AVERAGE"):
        return n.op(graph.Reduce, said, kind="sum" if aggregate == "SUM" else "mean", axes=(1,), keepdims=False)
    if aggregate not in ("MIN", "MAX"):
        raise InputError(f"its aggregate_function is {aggregate}, and SUM, AVERAGE, MIN and MAX are the choices")
    # Of the trees that speak of a target; 0 where none does.
    counted = n.op(graph.Gather, n.constant(forest.counted), at, axis=0)
    neutral = n.like(np.inf if aggregate == "MIN" else -np.inf, said)
    best = n.op(
        graph.Reduce, n.op(graph.Where, counted, said, neutral), kind=aggregate.lower(), axes=(1,), keepdims=False
    )
    return n.op(graph.Where, n.op(graph.Equal, best, neutral), n.like(0, best), best)


def _floats(n: Node, name: str) -> Array:
    """An attribute of floats, or its twin as a tensor, which may be of doubles."""
    if n.has(f"{name}_as_tensor"):
        return to_array(n.attr(f"{name}_as_tensor"), n.importer.model.folder, f"its {name}").reshape(-1)
    return np.asarray(n.attr(name, []), np.float32)


def _forest(n: Node, what: str, targets: int) -> Forest:
    """The forest of a TreeEnsembleRegressor (`what` target) or -Classifier (class): nodes named by (tree, node)."""
    trees, ids = n.attr("nodes_treeids"), n.attr("nodes_nodeids")
    number = {key: i for i, key in enumerate(zip(trees, ids, strict=True))}
    count = len(number)
    modes = [_MODES.index(m) for m in n.attr("nodes_modes")]
    values = _floats(n, "nodes_values")
    columns = [modes, values, n.attr("nodes_featureids"), n.attr("nodes_truenodeids"), n.attr("nodes_falsenodeids")]
    if any(len(c) != count for c in columns):
        raise InputError(f"its node attributes have {[len(c) for c in columns]} entries for {count} nodes")
    leaf = [m == _LEAF for m in modes]
    try:
        yes, no = (
            np.array([i if leaf[i] else number[trees[i], c] for i, c in enumerate(n.attr(f"nodes_{side}nodeids"))])
            for side in ("true", "false")
        )
        speaking = [number[k] for k in zip(n.attr(f"{what}_treeids"), n.attr(f"{what}_nodeids"), strict=True)]
    except KeyError as e:
        raise InputError(f"its trees have no node {e.args[0]}") from None
    said = _floats(n, f"{what}_weights")
    weights, counted = np.zeros((count, targets), said.dtype), np.zeros((count, targets), np.bool_)
    np.add.at(weights, (speaking, n.attr(f"{what}_ids")), said)
    counted[speaking, n.attr(f"{what}_ids")] = True
    led_to = {*yes[~np.array(leaf)].tolist(), *no[~np.array(leaf)].tolist()}
    first = {tree: i for i, tree in reversed(list(enumerate(trees))) if i not in led_to}
    missing = np.array(n.attr("nodes_missing_value_tracks_true", None) or [0] * count, np.bool_)
    return Forest(
        _indices([first[t] for t in dict.fromkeys(trees)]), np.array(modes), _indices(n.attr("nodes_featureids")),
        values, yes, no, missing, weights, counted,
    )  # fmt: skip


def _indices(values: Any) -> Array:
    return np.asarray(values, np.int64)


@onnx_op("TreeEnsembleRegressor", domain=ML)
def tree_ensemble_regressor(n: Node) -> Value:
    targets = n.attr("n_targets", 1)
    forest = _forest(n, "target", targets)
    scores = n.cast(_scores(n, forest, n.attr("aggregate_function", "SUM")), F32)
    base = _floats(n, "base_values")
    if base.size:
        scores = n.op(graph.Add, scores, n.constant(base, F32))
    return transformed(n, scores)


@onnx_op("TreeEnsembleClassifier", domain=ML)
def tree_ensemble_classifier(n: Node) -> list[Value]:
    """The label of the largest score. Two labels and leaves that speak of class 0 only: the score is that of the second
    label, and the other's 1 - score where no weight is negative (the limit is then 0.5), else -score (and 0); LOGISTIC
    is of score and -score."""
    labels = label_count(n)
    forest = _forest(n, "class", max(labels, 1))
    scores = n.cast(_scores(n, forest, "SUM"), F32)
    base, used = _floats(n, "base_values"), sorted(set(n.attr("class_ids")))
    if labels == 2 and used == [0]:
        spoken = n.op(graph.Slice, scores, starts=(0, 0), sizes=(n.shape(scores)[0], 1), steps=(1, 1))
        if base.size:
            spoken = n.op(graph.Add, spoken, n.constant(base[-1:], F32))
        probable = not (_floats(n, "class_weights") < 0).any()
        limit = n.like(0.5 if probable else 0.0, spoken)
        places = n.cast(n.reshape(n.op(graph.Greater, spoken, limit), n.shape(spoken)[:1]), I64)
        if n.attr("post_transform", "NONE") == "LOGISTIC":
            return [labelled(n, places), n.op(graph.Sigmoid, two(n, n.op(graph.Neg, spoken), spoken))]
        other = n.op(graph.Sub, n.like(1, spoken), spoken) if probable else n.op(graph.Neg, spoken)
        return [labelled(n, places), two(n, other, spoken)]
    if base.size:
        scores = n.op(graph.Add, scores, n.constant(base, F32))
    return [labelled(n, largest(n, scores)), transformed(n, scores)]


@onnx_op("TreeEnsemble", domain=ML)
def tree_ensemble(n: Node) -> Value:
    """Opset 5: inner nodes and leaves are numbered apart, and nodes may test for membership of sets."""
    folder = n.importer.model.folder
    yes, no = _indices(n.attr("nodes_truenodeids")), _indices(n.attr("nodes_falsenodeids"))
    inner = yes.size
    yes = yes + inner * (_indices(n.attr("nodes_trueleafs")) != 0)
    no = no + inner * (_indices(n.attr("nodes_falseleafs")) != 0)
    said = to_array(n.attr("leaf_weights"), folder, "its leaf_weights").reshape(-1)
    leaves, targets = _indices(n.attr("leaf_targetids")), n.attr("n_targets")
    count = inner + said.size
    mode = np.full(count, _LEAF)
    mode[:inner] = to_array(n.attr("nodes_modes"), folder, "its nodes_modes").reshape(-1)
    value = np.zeros(count, said.dtype)
    value[:inner] = to_array(n.attr("nodes_splits"), folder, "its nodes_splits").reshape(-1)
    own = np.arange(count)
    weights, counted = np.zeros((count, targets), said.dtype), np.zeros((count, targets), np.bool_)
    weights[inner + np.arange(said.size), leaves] = said
    counted[inner + np.arange(said.size), leaves] = True
    missing = np.zeros(count, np.bool_)
    missing[:inner] = n.attr("nodes_missing_value_tracks_true", None) or [0] * inner
    feature = np.zeros(count, np.int64)
    feature[:inner] = n.attr("nodes_featureids")
    # A lone leaf is written as an inner node whose branches both lead to it.
    forest = Forest(
        _indices(n.attr("tree_roots")), mode, feature, value, np.concatenate([yes, own[inner:]]),
        np.concatenate([no, own[inner:]]), missing, weights, counted,
    )  # fmt: skip
    if (mode == _MEMBER).any():
        forest.members = _sets(mode, to_array(n.attr("membership_values"), folder, "its membership_values").reshape(-1))
    kinds = ("AVERAGE", "SUM", "MIN", "MAX")
    return transformed(n, _scores(n, forest, kinds[n.attr("aggregate_function", 1)]))


def _sets(mode: Array, values: Array) -> Array:
    """The sets of the nodes that test membership, in order of these nodes; in the list a NaN ends each."""
    ends = np.flatnonzero(np.isnan(values))
    sets = [s[~np.isnan(s)] for s in np.split(values, ends + 1)]
    testing = np.flatnonzero(mode == _MEMBER)
    if len(sets) < testing.size:
        raise InputError(f"its {testing.size} membership nodes have {len(sets)} sets")
    out = np.full((mode.size, max(1, *(s.size for s in sets))), np.nan, values.dtype)
    for node, s in zip(testing, sets, strict=False):
        out[node, : s.size] = s
    return out
