# SPDX-License-Identifier: Apache-2.0
"""Changing IR: every change goes through a `Rewriter`, which knows whether anything changed and keeps the decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tcc.ir.core import Block, Loc, Op, Value, union_loc

OpT = TypeVar("OpT", bound=Op)


@dataclass(frozen=True)
class Decision:
    """One decision of the compiler: a remark, choice, alias or tactic.

    `id` numbers decisions in a run; `kind` says what was decided (`fuse`, `layout`, `tactic`, …); `chosen` is the
    outcome; `alternatives` are (name, reason it was not chosen, seconds or None).
    """

    id: int
    pass_name: str
    kind: str
    op: str
    loc: Loc
    chosen: str
    reason: str = ""
    alternatives: tuple[tuple[str, str, float | None], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The row of `remarks.jsonl`."""
        return {
            "id": self.id,
            "pass": self.pass_name,
            "kind": self.kind,
            "op": self.op,
            "loc": list(self.loc),
            "chosen": self.chosen,
            "reason": self.reason,
            "alternatives": [{"name": n, "reason": r, "seconds": s} for n, r, s in self.alternatives],
        }


@dataclass
class Decisions:
    """All decisions of a run, in order."""

    rows: list[Decision] = field(default_factory=list[Decision])

    def add(
        self,
        pass_name: str,
        kind: str,
        op: Op | str,
        chosen: str,
        reason: str = "",
        alternatives: Iterable[tuple[str, str, float | None]] = (),
        loc: Loc = (),
    ) -> Decision:
        name, where = (op, loc) if isinstance(op, str) else (op.name, op.loc)
        row = Decision(len(self.rows), pass_name, kind, name, where, chosen, reason, tuple(alternatives))
        self.rows.append(row)
        return row


class Rewriter:
    """Inserts, replaces and erases ops, marks the run as changed, and records remarks under the pass's name."""

    def __init__(self, pass_name: str = "", decisions: Decisions | None = None) -> None:
        self.pass_name = pass_name
        self.decisions = Decisions() if decisions is None else decisions
        self.changed = False
        self.touched: list[Op] = []
        """Ops inserted, and users of replaced values, since the list was last cleared: a worklist's food."""

    def insert_before(self, anchor: Op, op: OpT) -> OpT:
        assert anchor.parent is not None
        anchor.parent.insert_before(op, anchor)
        return self._new(op)

    def insert_after(self, anchor: Op, op: OpT) -> OpT:
        assert anchor.parent is not None
        anchor.parent.insert_before(op, anchor.next_op)
        return self._new(op)

    def append(self, block: Block, op: OpT) -> OpT:
        return self._new(block.append(op))

    def _new(self, op: OpT) -> OpT:
        self.changed = True
        self.touched.append(op)
        return op

    def replace_value(self, old: Value, new: Value) -> None:
        """Every use of `old` becomes a use of `new`."""
        if old.use_count:
            self.changed = True
            self.touched += old.users
        old.replace_all_uses_with(new)
        if new.hint is None:
            new.hint = old.hint

    def replace(self, op: Op, *new: Op | Value | Sequence[Value], keep_loc: bool = False) -> None:
        """Replace an op by values (or by detached/attached ops, which are inserted before it if detached).

        The loc of `op` is added to the ops given, so no origin is lost.
        """
        values: list[Value] = []
        for item in new:
            if isinstance(item, Op):
                if item.parent is None:
                    self.insert_before(op, item)
                if not keep_loc:
                    item.loc = union_loc(item.loc, op.loc)
                values += item.results
            elif isinstance(item, Value):
                values.append(item)
            else:
                values += item
        for old, value in zip(op.results, values, strict=True):
            self.replace_value(old, value)
        self.erase(op)

    def erase(self, op: Op) -> None:
        """Remove an unused op; its operands' producers become candidates again."""
        self.touched += [v.owner for v in op.operands if isinstance(v.owner, Op)]
        self.changed = True
        op.erase()

    def set_attr(self, op: Op, name: str, value: Any) -> None:
        if op.attrs.get(name) != value:
            op.attrs[name] = value
            self.changed = True
            self.touched.append(op)

    def set_operand(self, op: Op, index: int, value: Value) -> None:
        if op.operands[index] is not value:
            op.set_operand(index, value)
            self.changed = True
            self.touched.append(op)

    def move_before(self, op: Op, anchor: Op) -> None:
        assert anchor.parent is not None
        op.detach()
        anchor.parent.insert_before(op, anchor)
        self.changed = True

    def remark(self, op: Op, kind: str, chosen: str, reason: str) -> None:
        """Record why something was or was not done to `op`."""
        self.decisions.add(self.pass_name, kind, op, chosen, reason)


Pattern = Callable[[Op, Rewriter], bool]
"""Tries one rewrite rooted at an op; returns whether it did it."""


def apply_patterns(root: Op, patterns: dict[str, list[Pattern]], rewriter: Rewriter, limit: int = 200_000) -> bool:
    """Apply patterns (by op name; "*" for all ops) until none matches, with a worklist. Returns whether IR changed.

    RuntimeError after `limit` rewrites: two patterns undo each other.
    """
    work = [op for op in root.walk() if op is not root]
    work.reverse()
    queued = set(work)
    anything = patterns.get("*", [])
    count = 0
    changed = False
    while work:
        op = work.pop()
        queued.discard(op)
        if not _inside(op, root):
            continue
        for pattern in (*patterns.get(op.name, ()), *anything):
            rewriter.touched.clear()
            if not pattern(op, rewriter):
                continue
            changed = True
            count += 1
            if count > limit:
                raise RuntimeError(f"patterns do not settle: still rewriting {op.name} after {limit} rewrites")
            again = list(dict.fromkeys(rewriter.touched))
            if _inside(op, root):
                again.append(op)
            for each in again:
                if each not in queued:
                    queued.add(each)
                    work.append(each)
            break
    return changed


def _inside(op: Op, root: Op) -> bool:
    at: Op | None = op
    while at is not None:
        if at is root:
            return True
        if at.parent is None:
            return False
        at = at.parent_op
    return False
