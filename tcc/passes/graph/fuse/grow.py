# SPDX-License-Identifier: Apache-2.0
"""How clusters grow: index ops that contractions read through, epilogues, prologues, and clusters without an anchor."""

from __future__ import annotations

import heapq

from tcc.ir.core import Op, Value
from tcc.ir.expr import product
from tcc.ir.graph import Cast, Concat, Constant, Reshape, Transpose
from tcc.ir.graph.base import GraphOp, tensor_type
from tcc.ir.rewriter import Rewriter
from tcc.passes.graph.fuse.partition import Cluster, Partition
from tcc.passes.graph.fuse.rules import (
    CONTRACTIONS,
    COSTLY,
    anchor_operands,
    follow_reason,
    is_index,
    is_pointwise,
    is_view,
    is_widened_constant,
    leads_to_indices,
    overlaps,
    prologue_reason,
    reads_well,
    short,
)

MOST_READS = 32
"""How many times over a cluster may compute one of its ops at a point: taps of resizes multiply."""
LARGE = 1 << 16
"""Elements from which costly ops are computed once, by a kernel of their own, rather than in every pass over rows."""
MOST_PARTS = 4
"""Concats of at most so many parts are read part by part."""


class Grower:
    """Grows the clusters of one block."""

    def __init__(self, partition: Partition, rewriter: Rewriter, max_ops: int, max_outputs: int) -> None:
        self.p = partition
        self.rewriter = rewriter
        self.max_ops = max_ops
        self.max_outputs = max_outputs

    def declined(self, op: Op, into: Op, reason: str) -> None:
        self.rewriter.remark(op, "fuse", f"not fused into {short(into)}", reason)

    # What a contraction or attention reads through.

    def read_through(self, cluster: Cluster) -> None:
        """Clone the index ops through which an anchor can read its operands where they lie."""
        anchor = cluster.anchor
        assert anchor is not None
        for value in anchor_operands(anchor):
            chain: list[GraphOp] = []
            op = value.defining_op
            while op is not None and op in self.p.position and is_view(op) and is_index(op):
                assert isinstance(op, GraphOp)
                chain.append(op)
                op = op.operands[0].defining_op
            reason: str | None = None
            while chain:
                if isinstance(chain[-1], Reshape):
                    chain.pop()  # a view of what is in memory anyway
                    continue
                reason = reads_well(anchor, chain)
                if reason is None:
                    break
                self.declined(chain.pop(), anchor, reason)
            cluster.through.update(chain)
            for each in chain:
                if each not in cluster:
                    self.p.clone(cluster, each)
        if anchor.name in CONTRACTIONS:
            widened = anchor.operands[1].defining_op
            if isinstance(widened, Cast) and widened in self.p.position and is_widened_constant(widened):
                cluster.through.add(widened)
                self.p.clone(cluster, widened)

    # Epilogues.

    def follow(self, cluster: Cluster) -> None:
        """Own the pointwise ops, transposes and reshapes after the anchor, as far as one result leaves the cluster, or
        two where that saves a kernel."""
        anchor = cluster.anchor
        assert anchor is not None
        found, reasons = self._followers(cluster, anchor)
        best = 0
        for i in range(len(found), 0, -1):
            if len(self.p.exits(cluster, found[:i])) == 1:
                best = i
                break
        more = self._second_output(cluster, found, best)
        for op in found[: more or best]:
            self.p.own(cluster, op)
        self._strip_last(cluster)
        for op in self.p.exits(cluster):
            takers = self.p.outside(op, cluster, cluster.owned)
            for user in takers:
                if user in cluster or not (is_pointwise(user) or is_index(user)):
                    continue
                why = reasons.get(user) or (f"{short(op)} has {len(takers)} users" if len(takers) > 1 else None)
                if why is not None and not isinstance(user, Reshape):
                    self.declined(user, anchor, why)

    def _followers(self, cluster: Cluster, anchor: GraphOp) -> tuple[list[GraphOp], dict[Op, str]]:
        """Every op that could be in the epilogue, in order, and why others could not."""
        views: dict[Value, int] = dict.fromkeys(anchor.results, 0)
        inside: dict[GraphOp, None] = dict.fromkeys(cluster.owned)
        found: list[GraphOp] = []
        reasons: dict[Op, str] = {}
        heap = [(self.p.position[u], u) for u in self.p.users[anchor]]
        heapq.heapify(heap)
        seen: set[Op] = set()
        while heap:
            _, op = heapq.heappop(heap)
            if op in seen or op in inside:
                continue
            seen.add(op)
            reason = self._cannot_follow(op, cluster, inside, views)
            if reason is not None:
                reasons[op] = reason
                continue
            assert isinstance(op, GraphOp)
            found.append(op)
            inside[op] = None
            moved = isinstance(op, Transpose | Reshape)
            source = next(v for v in op.operands if v in views)
            views[op.results[0]] = len(views) if moved else views[source]
            for user in self.p.users[op]:
                heapq.heappush(heap, (self.p.position[user], user))
        return found, reasons

    def _cannot_follow(
        self, op: Op, cluster: Cluster, inside: dict[GraphOp, None], views: dict[Value, int]
    ) -> str | None:
        assert cluster.anchor is not None
        if op in self.p.cluster_of:
            return "it is in another group"
        if op.regions or not isinstance(op, GraphOp) or op.terminator:
            return f"{short(op)} ends the group"
        if cluster.anchor.category == "recurrence":
            return "the kernel of a recurrence gives its own results"
        reason = follow_reason(op, views, cluster.anchor.name == "graph.attention")
        if reason is not None:
            return reason
        if len(inside) + len(cluster.clones) + 1 > self.max_ops:
            return f"the group has {self.max_ops} ops"
        if self.p.cloned_by.get(op):
            return "what uses it reads through it"
        if self.p.depends(self.p.sources([op]), inside):
            return "another of its operands is computed from the result outside of the group"
        return None

    def _second_output(self, cluster: Cluster, found: list[GraphOp], best: int) -> int:
        """The number of followers to own where a second result leaves the cluster; 0: none is worth it. Worth it is a
        pointwise chain for a contraction or an output, which else would be a kernel by itself."""
        if self.max_outputs < 2:
            return 0
        first = self.p.exits(cluster, found[:best])
        for i in range(len(found), best, -1):
            last = found[i - 1]
            out = self.p.exits(cluster, found[:i])
            if len(out) != 2 or last not in out or isinstance(last, Transpose | Reshape):
                continue
            if not {op for op in out if op is not last} <= set(first):
                continue
            inside = {*cluster.owned, *found[:i]}
            wanted = all(self._reads_tensors(u) for u in self.p.outside(last, cluster, inside))
            others = self.p.sources(found[best:i])
            settled = all(s in inside or isinstance(s, Constant) or s in self.p.cluster_of for s in others)
            if wanted and settled:
                return i
        return 0

    def _reads_tensors(self, op: Op) -> bool:
        """Whether an op takes what it is given from memory, rather than computing it where it reads it."""
        if isinstance(op, Concat):
            return True
        return op.name in CONTRACTIONS or not isinstance(op, GraphOp) or op.terminator or bool(op.regions)

    def _strip_last(self, cluster: Cluster) -> None:
        """Release reshapes at the end of an epilogue: alone they are views."""
        while True:
            loose = [
                op for op in cluster.owned
                if isinstance(op, Reshape) and not any(u in cluster for u in self.p.users[op])
            ]  # fmt: skip
            if not loose:
                return
            for op in loose:
                self.p.disown(cluster, op)

    # Prologues.

    def precede(self, cluster: Cluster) -> None:
        """Own the pointwise and index ops before the cluster that nothing else needs, and read through index ops that
        others need too."""
        work = list(cluster.members())
        seen: set[Op] = set()
        while work:
            reader = work.pop(0)
            for value in self._readable(cluster, reader):
                op = value.defining_op
                if op is None or op in cluster or not self.p.free(op) or isinstance(op, Constant):
                    continue
                reason = self._cannot_precede(op, reader, cluster)
                if reason is not None:
                    if op not in seen and (is_pointwise(op) or is_index(op)):
                        self.declined(op, cluster.first, reason)
                    seen.add(op)
                    continue
                assert isinstance(op, GraphOp)
                if self.p.cloned_by.get(op) or self.p.outside(op, cluster, ()):
                    self.p.clone(cluster, op)
                else:
                    self.p.own(cluster, op)
                work.append(op)
        self._strip_first(cluster)

    def _readable(self, cluster: Cluster, op: GraphOp) -> tuple[Value, ...]:
        """The operands of a member that may be computed where they are read."""
        if op in cluster.through:
            return ()
        if op is not cluster.anchor:
            return op.operands
        if op.name in CONTRACTIONS:
            return ()
        if op.name == "graph.attention":
            return op.operands[3:]
        if op.category == "recurrence":
            return (op.operands[0], *op.operands[2:])  # its weights lie in memory as one matrix
        return op.operands

    def _cannot_precede(self, op: Op, reader: GraphOp, cluster: Cluster) -> str | None:
        reason = prologue_reason(op, cluster.anchor, {*cluster.members()})
        if reason is not None:
            return reason
        assert isinstance(op, GraphOp)
        if op in self._factors(cluster):
            return f"{short(cluster.first)} reads it from memory"
        if cluster.size + 1 > self.max_ops:
            return f"the group has {self.max_ops} ops"
        users = self.p.outside(op, cluster, ())
        if (users or self.p.cloned_by.get(op)) and not (is_view(op) and not any(_ends(u) for u in users)):
            return f"its result is also used by {short(users[0])}" if users else "others read through it"
        if isinstance(op, Concat) and not self._reads_parts(op):
            return "a concat is written in place by what it joins"
        if cluster.anchor is not None and op.name in COSTLY:
            if overlaps(cluster.anchor):
                return f"{short(op)} would be computed for every window"
            if cluster.anchor.category == "rows" and self._large(op):
                return f"{short(op)} would be computed in every pass over a row"
            if reader is not cluster.anchor and self._grows(op, cluster):
                return f"{short(op)} would be computed for every element that it broadcasts to"
        if cluster.anchor is not None and overlaps(cluster.anchor) and cluster.size > 4:
            return "the group would compute more than 4 ops for every window"
        if self._reads(op, cluster) > MOST_READS:
            return f"it would be computed more than {MOST_READS} times over"
        return None

    def _factors(self, cluster: Cluster) -> set[Op | None]:
        """What makes the factors that an anchor takes from memory; an epilogue that needs them too reads them there."""
        anchor = cluster.anchor
        if anchor is None:
            return set()
        computed = self._readable(cluster, anchor)
        taken = {v.defining_op for v in anchor.operands if v not in computed}
        return {*taken, *(v.defining_op for op in cluster.through for v in op.operands)} - {*cluster.through}

    def _reads_parts(self, op: Concat) -> bool:
        """Whether a concat is better read part by part: few parts, none of which a kernel of its own writes."""
        sources = [v.defining_op for v in op.operands]
        made = [s for s in sources if s is not None and s in self.p.cluster_of]
        return len(sources) <= MOST_PARTS and not made

    def _large(self, op: GraphOp) -> bool:
        """Whether computing an op's result several times costs more than a kernel for it."""
        size = tensor_type(op.results[0]).size
        return isinstance(size, int) and size > LARGE

    def _grows(self, op: GraphOp, cluster: Cluster) -> bool:
        """Whether an op has fewer elements than the result it helps to compute."""
        assert cluster.anchor is not None
        mine, whole = (product(tensor_type(v).shape) for v in (op.results[0], cluster.anchor.results[0]))
        return isinstance(mine, int) and isinstance(whole, int) and mine < whole

    def _reads(self, op: GraphOp, cluster: Cluster) -> int:
        """At how many places a point of the cluster reads an op: index ops other than the same one differ."""
        memo: dict[Op, frozenset[tuple[int, ...]]] = {}

        def places(at: Op) -> frozenset[tuple[int, ...]]:
            if at not in memo:
                out: set[tuple[int, ...]] = set()
                users = [u for u in self.p.users[at] if u in cluster]
                for user in users:
                    step = () if is_pointwise(user) else (self.p.position[user],)
                    out |= {(*step, *rest) for rest in places(user)}
                memo[at] = frozenset(out or {()})
            return memo[at]

        return len(places(op))

    def _strip_first(self, cluster: Cluster) -> None:
        """Release reshapes that the cluster begins with, and what they alone are for: views are free."""
        while True:
            loose = [
                op for op in cluster.members()
                if isinstance(op, Reshape) and op is not cluster.first
                and not any(s in cluster for s in self.p.inputs[op])
                and not any(isinstance(s, Constant) for s in self.p.inputs[op])
                and not self._also_yielded(op, cluster)
            ]  # fmt: skip
            if not loose:
                return
            for op in loose:
                if op in cluster.owned:
                    self.p.disown(cluster, op)
                else:
                    self.p.unclone(cluster, op)

    def _also_yielded(self, op: GraphOp, cluster: Cluster) -> bool:
        return op in cluster.owned and bool(self.p.outside(op, cluster, ()))

    # Clusters without an anchor.

    def map_from(self, root: GraphOp) -> None:
        """A cluster of pointwise and index ops that ends in `root`."""
        if isinstance(root, Reshape | Concat):
            return
        cluster = self.p.start(root, anchored=False)
        self.precede(cluster)
        while self._widen(cluster):
            self.precede(cluster)

    def _widen(self, cluster: Cluster) -> bool:
        """Own one more pointwise op of the root's shape whose result others need too: it becomes another result."""
        if len(self.p.exits(cluster)) >= self.max_outputs or not is_pointwise(cluster.first):
            return False
        shape = tensor_type(cluster.first.results[0]).shape
        level = self._level(cluster)
        for reader in level:
            for value in reader.operands:
                op = value.defining_op
                if op is None or op in cluster or not self.p.free(op) or not is_pointwise(op):
                    continue
                assert isinstance(op, GraphOp)
                if tensor_type(value).shape != shape or cluster.size + 1 > self.max_ops:
                    continue
                inside = {*cluster.owned, op}
                sources = self.p.sources({*cluster.members(), op})
                if leads_to_indices(op, {*cluster.members()}) or self.p.depends(sources, inside):
                    continue
                self.p.own(cluster, op)
                return True
        return False

    def _level(self, cluster: Cluster) -> list[GraphOp]:
        """The pointwise members that stand where the root does: no index op between."""
        out: dict[GraphOp, None] = {cluster.first: None}
        work = [cluster.first]
        while work:
            for source in self.p.inputs[work.pop()]:
                if source in cluster and is_pointwise(source) and source not in out and isinstance(source, GraphOp):
                    if tensor_type(source.results[0]).shape == tensor_type(cluster.first.results[0]).shape:
                        out[source] = None
                        work.append(source)
        return list(out)


def _ends(op: Op) -> bool:
    """Whether an op takes tensors out of the block, or into its regions."""
    return bool(op.regions) or getattr(type(op), "terminator", False)
