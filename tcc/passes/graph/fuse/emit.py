# SPDX-License-Identifier: Apache-2.0
"""Clusters become `graph.fused` ops, and the block is put in an order that fits them."""

from __future__ import annotations

import heapq

from tcc.ir.core import Block, Op, Region, Value, union_loc
from tcc.ir.graph import Fused, Yield
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.fuse.partition import Cluster, Partition

Node = Cluster | Op


def emit(p: Partition, rewriter: Rewriter) -> None:
    """Replace the clusters of more than one op by groups."""
    clusters = [c for c in p.clusters if c.size > 1]
    if not clusters:
        return
    live = [op for op in p.ops if op in p.cluster_of or p.needed(op)]
    dead = [op for op in p.ops if op not in p.cluster_of and not p.needed(op)]
    replaced: dict[Value, Value] = {}
    for node in _ordered(p, live):
        if isinstance(node, Cluster):
            _group(p, node, replaced, rewriter)
        else:
            p.block.unlink(node)
            p.block.insert_before(node, None)
    for op in reversed([*dead, *(op for c in clusters for op in c.owned)]):
        op.drop_operands()
    for op in [*dead, *(op for c in clusters for op in c.owned)]:
        op.erase()


def _node(p: Partition, op: Op) -> Node:
    cluster = p.cluster_of.get(op)
    return cluster if cluster is not None and cluster.size > 1 else op


def _ordered(p: Partition, live: list[Op]) -> list[Node]:
    """Clusters and ops after everything they read; otherwise by the place of their last op."""
    nodes: dict[Node, int] = {}
    for op in live:
        nodes[_node(p, op)] = p.position[op]
    waits: dict[Node, set[Node]] = {n: set() for n in nodes}
    for node in nodes:
        members: list[Op] = list(node.members()) if isinstance(node, Cluster) else [node]
        for op in members:
            for source in p.inputs[op]:
                if source not in members:
                    waits[node].add(_node(p, source))
    followers: dict[Node, list[Node]] = {n: [] for n in nodes}
    for node, before in waits.items():
        for b in before:
            followers[b].append(node)
    ready = [(place, i) for i, (n, place) in enumerate(nodes.items()) if not waits[n]]
    names = list(nodes)
    number = {n: i for i, n in enumerate(names)}
    heapq.heapify(ready)
    out: list[Node] = []
    while ready:
        _, i = heapq.heappop(ready)
        node = names[i]
        out.append(node)
        for f in followers[node]:
            waits[f].discard(node)
            if not waits[f]:
                heapq.heappush(ready, (nodes[f], number[f]))
    assert len(out) == len(nodes), "fusion groups depend on each other in a circle"
    return out


def _group(p: Partition, cluster: Cluster, replaced: dict[Value, Value], rewriter: Rewriter) -> None:
    """Append the group of a cluster, and give its results to those who take them."""
    members = sorted(cluster.members(), key=lambda op: p.position[op])
    inside = {r for op in members for r in op.results}
    inputs = list(dict.fromkeys(replaced.get(v, v) for op in members for v in op.operands if v not in inside))
    block = Block([v.type for v in inputs], [v.hint for v in inputs])
    arguments: dict[Value, Value] = dict(zip(inputs, block.args, strict=True))
    values = {v: arguments[replaced.get(v, v)] for op in members for v in op.operands if v not in inside}
    for op in members:
        block.append(op.clone(values))
    leaving = sorted(p.exits(cluster), key=lambda op: p.position[op])
    results = [r for op in leaving for r in op.results]
    block.append(Yield([values[r] for r in results]))
    fused = Fused(inputs, regions=[Region(block)], loc=union_loc(*(op.loc for op in members)))
    rewriter.append(p.block, fused)
    rewriter.remark(fused, "fuse", "fused", ", ".join(op.name.removeprefix("graph.") for op in members))
    for old, new in zip(results, fused.results, strict=True):
        new.hint = old.hint
        replaced[old] = new
        for user, index in old.uses:
            if user not in cluster.owned:
                rewriter.set_operand(user, index, new)
