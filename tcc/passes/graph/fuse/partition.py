# SPDX-License-Identifier: Apache-2.0
"""A block cut into clusters: who is in which, who still needs a value, and whether a cluster stays free of cycles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from tcc.ir.core import Block, Op
from tcc.ir.graph.base import GraphOp
from tcc.ir.graph.symbols import given, mentioned


def mentioned_inside(op: Op) -> set[str]:
    """The symbols that an op or what its regions hold mentions."""
    return {s for inner in op.walk() for s in mentioned(inner)}


class Cluster:
    """A fusion group in the making.

    `owned` ops are computed here and nowhere else; `clones` are index ops that the cluster computes too, so that it
    reads through them; those of `through` lie between the anchor and a factor in memory. `anchor` is None for a cluster
    of pointwise and index ops.
    """

    def __init__(self, first: GraphOp, anchored: bool) -> None:
        self.anchor: GraphOp | None = first if anchored else None
        self.first = first
        self.owned: dict[GraphOp, None] = {first: None}
        self.clones: dict[GraphOp, None] = {}
        self.through: set[GraphOp] = set()

    def __contains__(self, op: object) -> bool:
        return op in self.owned or op in self.clones

    def members(self) -> Iterator[GraphOp]:
        yield from self.owned
        yield from self.clones

    @property
    def size(self) -> int:
        return len(self.owned) + len(self.clones)


class Partition:
    """The clusters of one block, over a graph whose nodes are the block's ops."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.ops: list[Op] = list(block.ops)
        self.position: dict[Op, int] = {op: i for i, op in enumerate(self.ops)}
        self.inputs: dict[Op, list[Op]] = {op: [] for op in self.ops}
        self.users: dict[Op, list[Op]] = {op: [] for op in self.ops}
        makers = {s: op for op in reversed(self.ops) for s in given(op)}
        for op in self.ops:
            # An op stands after what gives the symbols it mentions, though it takes no value from there.
            for maker in dict.fromkeys(makers[s] for s in sorted(mentioned_inside(op)) if s in makers):
                if maker is not op:
                    self.inputs[op].append(maker)
            captured = dict.fromkeys(v for inner in op.walk() for v in inner.operands)
            for source in dict.fromkeys(v.defining_op for v in captured):
                if source is not None and source in self.position and source is not op:
                    if source not in self.inputs[op]:
                        self.inputs[op].append(source)
                    self.users[source].append(op)
        self.cluster_of: dict[Op, Cluster] = {}
        self.cloned_by: dict[Op, list[Cluster]] = {}
        self.clusters: list[Cluster] = []

    # Changing clusters.

    def start(self, op: GraphOp, anchored: bool) -> Cluster:
        cluster = Cluster(op, anchored)
        self.clusters.append(cluster)
        self.cluster_of[op] = cluster
        return cluster

    def own(self, cluster: Cluster, op: GraphOp) -> None:
        if op in cluster.clones:
            self.unclone(cluster, op)
        cluster.owned[op] = None
        self.cluster_of[op] = cluster

    def disown(self, cluster: Cluster, op: GraphOp) -> None:
        del cluster.owned[op]
        del self.cluster_of[op]

    def clone(self, cluster: Cluster, op: GraphOp) -> None:
        cluster.clones[op] = None
        self.cloned_by.setdefault(op, []).append(cluster)

    def unclone(self, cluster: Cluster, op: GraphOp) -> None:
        del cluster.clones[op]
        self.cloned_by[op].remove(cluster)

    # Questions.

    def free(self, op: Op | None) -> bool:
        """Whether an op is in the block and no cluster owns it."""
        return op is not None and op in self.position and op not in self.cluster_of

    def needed(self, op: Op) -> bool:
        """Whether an op must be computed, other than by clusters that read through it."""
        if op in self.cluster_of or not self.cloned_by.get(op):
            return True
        return bool(self.takers(op))

    def takers(self, op: Op) -> list[tuple[Op, Cluster | None]]:
        """(user, cluster that computes it or None) for the users of an op that take its result as a tensor: not those
        that a cluster computes together with it. A user that several clusters read through comes once for each."""
        out: list[tuple[Op, Cluster | None]] = []
        for user in self.users[op]:
            owner = self.cluster_of.get(user)
            homes = [*self.cloned_by.get(user, ()), *(() if owner is None else (owner,))]
            out += [(user, home) for home in homes if op not in home]
            if owner is None and self.needed(user):
                out.append((user, None))
        return out

    def outside(self, op: Op, cluster: Cluster, inside: Collection[Op]) -> list[Op]:
        """The users that take an op's result out of a cluster that also computes the ops `inside`."""
        return [u for u, home in self.takers(op) if home is not cluster and (home is not None or u not in inside)]

    def exits(self, cluster: Cluster, more: Collection[GraphOp] = ()) -> list[GraphOp]:
        """The ops that a cluster owns, with those of `more`, whose results are taken outside of it."""
        inside = [*cluster.owned, *more]
        held = set(inside)
        return [op for op in inside if self.outside(op, cluster, held)]

    def depends(self, sources: Iterable[Op], inside: Collection[Op]) -> bool:
        """Whether one of `sources` can only be computed after ops `inside`, through ops that are not."""
        first = min(self.position[op] for op in inside)
        work = [op for op in sources if op not in inside]
        seen: set[Op] = set()
        while work:
            op = work.pop()
            if op in seen:
                continue
            home = self.cluster_of.get(op)
            group: list[Op] = [op] if home is None else [g for g in home.members() if g not in inside]
            seen.update([op] if home is None else home.owned)
            if max(self.position[g] for g in group) < first:
                continue
            for g in group:
                for source in self.inputs[g]:
                    if home is not None and source in home:
                        continue
                    if source in inside:
                        return True
                    if source not in seen:
                        work.append(source)
        return False

    def sources(self, ops: Collection[Op]) -> list[Op]:
        """The producers outside of a set of ops that they read."""
        return list(dict.fromkeys(s for op in ops for s in self.inputs[op] if s not in ops))
