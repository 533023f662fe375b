# SPDX-License-Identifier: Apache-2.0
"""`plan-memory`: an arena offset for every tensor that a launch writes, reusing what is dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tcc.ir.core import Op, Value
from tcc.ir.kernel import Assemble, Host, HostCall, If, LaunchOp, Loop, Return, ViewOp
from tcc.ir.module import ModuleOp
from tcc.ir.rewriter import Rewriter
from tcc.ir.types import TensorType, on_host
from tcc.passes.base import Pass, PassContext, register_pass
from tcc.passes.kernel.storage import Storage, is_planned, is_static, maker, resolve, size_of

ALIGN = 256
LARGE, LARGE_ON_CUDA = 1 << 18, 1 << 24
"""Bytes of a loop's variable from which on it is not copied; on a GPU graphs must be told where it is."""
SMALL_SCRATCH = 1 << 20
"""Bytes up to which scratch memory is not used again by the launches that could run beside its own."""
APART = 8
"""How far apart such launches are."""


@dataclass
class _Buffer:
    size: int
    first: int
    last: int
    offset: int = 0


@register_pass
@dataclass(frozen=True)
class PlanMemory(Pass):
    """Assigns arena offsets, largest tensor first, each at the lowest place free over its life (Pisarchyk & Lee, 2020,
    greedy by size). Model outputs get the caller's memory. What has an extent that data decide is in the pool: a slot
    of its size, allocated before it is written and used again by the next of that size in its block once it is dead.
    So are large variables of loops and their next values, which change places. Workspaces live for their launch,
    small ones until its first reader.

    before: `%1 = kernel.launch(%0) {callee = "k0"}`; after: the same with `plan.place = [["arena", 4096]]`, and
    `arena` (bytes) and `lower_bound` (most bytes alive at once) on the host function.
    """

    name: ClassVar[str] = "plan-memory"

    def run(self, module: ModuleOp, rewriter: Rewriter, context: PassContext) -> None:
        for op in list(module.ops):
            if isinstance(op, Host):
                cuda = context.target is not None and context.target.is_cuda
                arena, bound = _plan(op, rewriter, LARGE_ON_CUDA if cuda else LARGE)
                rewriter.set_attr(op, "arena", arena)
                rewriter.set_attr(op, "lower_bound", bound)
                rewriter.decisions.add(
                    self.name, "memory", op, f"arena of {arena} bytes", f"at most {bound} bytes are alive at once"
                )


def _plan(host: Host, rewriter: Rewriter, large: int) -> tuple[int, int]:
    storage = resolve(host)
    order = {op: i for i, op in enumerate(host.walk())}
    pooled = _alternating(host, storage, large)
    outputs = {root: i for root, i in _outputs(host, storage).items() if root not in pooled}
    buffers: dict[Value, _Buffer] = {}
    for v, where in storage.items():
        root = where.root
        if not is_planned(root) or root in outputs or root in pooled or not is_static(root):
            continue
        touched = [*_life(v, order), *(_last(user, v, order) for user in v.users)]
        known = buffers.get(root)
        if known is None:
            buffers[root] = _Buffer(size_of(root), min(touched), max(touched))
        else:
            known.first, known.last = min(known.first, *touched), max(known.last, *touched)
    slots = _pool_slots(storage, order, pooled)
    scratch: dict[tuple[Op, int], _Buffer] = {}
    for op in order:
        if isinstance(op, LaunchOp) and op.workspace:
            for i, size in enumerate(op.workspace):
                last = _next_reader(op, order) if size <= SMALL_SCRATCH else order[op]
                scratch[op, i] = _Buffer(size, order[op], last)
    everything = [*buffers.values(), *scratch.values()]
    arena = _assign(everything)
    for op in order:
        roots = [r for r in op.results if is_planned(r)]
        if roots and isinstance(op, LaunchOp | Assemble | HostCall | If | Loop):
            places = tuple(_place(r, storage[r], outputs, buffers, slots) for r in op.results)
            rewriter.set_attr(op, "plan.place", places)
        if isinstance(op, Loop):
            where = _place(op.iteration, storage[op.iteration], outputs, buffers, slots)
            rewriter.set_attr(op, "plan.iteration", where)
        if isinstance(op, LaunchOp) and op.workspace:
            rewriter.set_attr(op, "plan.workspace", tuple(scratch[op, i].offset for i in range(len(op.workspace))))
    return arena, _bound(everything)


def _next_reader(op: Op, order: dict[Op, int]) -> int:
    """The place before the first op that waits for a launch anyway. Until then its scratch memory is its own, so that
    launches that do not need each other (both directions of a recurrent layer) need not wait for it."""
    first = order[op] + APART
    todo = list(op.results)
    while todo:
        for user in todo.pop().users:
            if isinstance(user, ViewOp | Assemble):
                todo += user.results
            elif user.parent is op.parent:
                first = min(first, order[user])
    return max(order[op], first - 1)


def _life(v: Value, order: dict[Op, int]) -> tuple[int, int]:
    """When a value is made; what a loop carries, and its iteration number, are there as long as it runs."""
    made = maker(v)
    return order[made], _end(made, order) if isinstance(made, Loop) else order[made]


def _last(user: Op, v: Value, order: dict[Op, int]) -> int:
    """When a use of a value is over: a loop may come back to it as long as it runs, unless it makes it anew."""
    home = v.owner.parent if isinstance(v.owner, Op) else v.owner
    last = _end(user, order)
    at: Op | None = user
    while at is not None and at.parent is not home:
        at = at.parent_op
        if isinstance(at, Loop):
            last = _end(at, order)
    return last


def _end(op: Op, order: dict[Op, int]) -> int:
    """The place of the last op inside an op."""
    last = order[op]
    for inner in op.walk():
        last = max(last, order[inner])
    return last


def _pool_slots(storage: dict[Value, Storage], order: dict[Op, int], pooled: set[Value]) -> dict[Value, int]:
    """A slot of the pool for every root whose size data decide, and for those of `pooled`. Slots are shared by roots
    of one size that kernels write in one block, one after the other."""
    lives: dict[Value, int] = {}
    for v, where in storage.items():
        root = where.root
        if is_planned(root) and (root in pooled or not is_static(root)):
            lives[root] = max([lives.get(root, 0), *(order[_within(user, root)] for user in v.users)])
    slots: dict[Value, int] = {}
    free: list[tuple[tuple[object, ...], int, int]] = []
    for root in sorted(lives, key=lambda r: order[maker(r)]):
        made = maker(root)
        first = min(order[maker(v)] for v, where in storage.items() if where.root is root)
        key = (made.parent, root.type.nbytes if isinstance(root.type, TensorType) else 0)
        shared = isinstance(made, LaunchOp | Assemble)
        slot = next((i for i, (k, _, last) in enumerate(free) if shared and k == key and last < first), None)
        if slot is None:
            slots[root] = len(free)
            free.append((key if shared else (), len(free), lives[root]))
        else:
            slots[root] = slot
            free[slot] = (key, slot, lives[root])
    return slots


def _within(op: Op, root: Value) -> Op:
    """The op of the block that makes `root` which holds `op`: a value lives as long as the whole of a branch or loop
    that uses it."""
    block = maker(root).parent
    at: Op | None = op
    while at is not None and at.parent is not block:
        at = at.parent_op
    return op if at is None else at


def _place(
    v: Value, where: Storage, outputs: dict[Value, int], buffers: dict[Value, _Buffer], slots: dict[Value, int]
) -> tuple[str, int]:
    if on_host(where.root.type):
        return ("host", 0)
    if where.root in slots:
        return (f"pool{slots[where.root]}", where.offset)
    if where.root in outputs:
        return (f"output{outputs[where.root]}", where.offset)
    return ("arena", buffers[where.root].offset + where.offset)


def _alternating(host: Host, storage: dict[Value, Storage], large: int) -> set[Value]:
    """Large variables of loops, and their next values where the body makes them anew: both lie in the pool, where they
    change places after an iteration, which a copy of them would slow down."""
    found: set[Value] = set()
    for op in host.walk():
        if not isinstance(op, Loop):
            continue
        given = [storage[v].root for v in op.body.block.terminator.operands]
        for v, var in zip(op.following, op.variables, strict=True):
            where = storage[v]
            if on_host(v.type) or not is_static(v) or size_of(v) < large or not is_planned(where.root):
                continue
            made = maker(where.root)
            anew = isinstance(made, LaunchOp | Assemble) and made.parent is op.body.block
            if (
                anew
                and storage[v].offset == 0
                and given.count(where.root) == 1
                and where.root.type == v.type == var.type
            ):
                found |= {var, where.root}
    return found


def _outputs(host: Host, storage: dict[Value, Storage]) -> dict[Value, int]:
    """Roots that the model returns whole: they are written in the caller's memory."""
    out: dict[Value, int] = {}
    returned = host.body.block.terminator
    assert isinstance(returned, Return)
    for i, v in enumerate(returned.operands):
        where = storage[v]
        if not is_static(v):
            continue
        assert isinstance(v.type, TensorType)
        dense = v.type.strides is None and where.offset == 0 and size_of(v) == size_of(where.root)
        planned = is_planned(where.root) and maker(where.root).parent is host.body.block
        if planned and dense and where.root not in out:
            out[where.root] = i
    return out


def _assign(buffers: list[_Buffer]) -> int:
    """Set the offsets; the bytes needed in all."""
    placed: list[_Buffer] = []
    total = 0
    for b in sorted(buffers, key=lambda b: (-b.size, b.first)):
        size = _padded(b.size)
        busy = sorted((o.offset, o.offset + _padded(o.size)) for o in placed if o.first <= b.last and b.first <= o.last)
        at = 0
        for start, end in busy:
            if at + size <= start:
                break
            at = max(at, end)
        b.offset = at
        placed.append(b)
        total = max(total, at + size)
    return total


def _padded(size: int) -> int:
    return -(-max(size, 1) // ALIGN) * ALIGN


def _bound(buffers: list[_Buffer]) -> int:
    """The most bytes alive at once."""
    steps: dict[int, int] = {}
    for b in buffers:
        steps[b.first] = steps.get(b.first, 0) + _padded(b.size)
        steps[b.last + 1] = steps.get(b.last + 1, 0) - _padded(b.size)
    alive = most = 0
    for at in sorted(steps):
        alive += steps[at]
        most = max(most, alive)
    return most
