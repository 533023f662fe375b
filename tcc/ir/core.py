# SPDX-License-Identifier: Apache-2.0
"""SSA core: values, operations, blocks and regions.

A block is a doubly linked list of ops, so insertion, removal and moving are O(1); a value knows its uses, so
replacing it costs its number of uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from tcc.ir.attributes import Attribute
from tcc.ir.types import Type

if TYPE_CHECKING:
    from tcc.ir.declare import OpSpec

OpT = TypeVar("OpT", bound="Op")
Loc = tuple[str, ...]
"""Names of the ONNX nodes an op came from, each once, in order."""


def union_loc(*locs: Iterable[str]) -> Loc:
    """The names of all locs, each once, first seen first."""
    return tuple(dict.fromkeys(name for loc in locs for name in loc))


class Value:
    """The result of an op or an argument of a block. `hint` is a name for printing; it carries no meaning."""

    __slots__ = ("_uses", "hint", "type")

    def __init__(self, type: Type, hint: str | None = None) -> None:
        self.type = type
        self.hint = hint
        self._uses: dict[tuple[Op, int], None] = {}

    @property
    def uses(self) -> list[tuple[Op, int]]:
        """(op, operand index) pairs, in the order the uses were made."""
        return list(self._uses)

    @property
    def users(self) -> list[Op]:
        """The ops that use the value, each once."""
        return list(dict.fromkeys(op for op, _ in self._uses))

    @property
    def use_count(self) -> int:
        return len(self._uses)

    def replace_all_uses_with(self, other: Value) -> None:
        """Make every use of this value a use of `other`."""
        if other is self:
            return
        for op, index in list(self._uses):
            op.set_operand(index, other)

    @property
    def owner(self) -> Op | Block:
        raise NotImplementedError

    @property
    def defining_op(self) -> Op | None:
        """The op whose result this is; None for a block argument."""
        owner = self.owner
        return owner if isinstance(owner, Op) else None


class OpResult(Value):
    """The `index`-th result of `op`."""

    __slots__ = ("index", "op")

    def __init__(self, op: Op, index: int, type: Type) -> None:
        super().__init__(type)
        self.op = op
        self.index = index

    @property
    def owner(self) -> Op:
        return self.op


class BlockArgument(Value):
    """The `index`-th argument of `block`."""

    __slots__ = ("block", "index")

    def __init__(self, block: Block, index: int, type: Type, hint: str | None = None) -> None:
        super().__init__(type, hint)
        self.block = block
        self.index = index

    @property
    def owner(self) -> Block:
        return self.block


class Op:
    """An operation. Subclasses declare their fields (see `tcc.ir.declare`), which parse, print and check it."""

    name: ClassVar[str] = "unregistered"
    spec: ClassVar[OpSpec]
    __slots__ = ("_operands", "attrs", "loc", "next_op", "parent", "prev_op", "regions", "results", "segments")

    def __init__(
        self,
        *operands: Value | Sequence[Value] | None,
        regions: Sequence[Region] = (),
        result_types: Sequence[Type] | None = None,
        loc: Iterable[str] = (),
        **attrs: Any,
    ) -> None:
        """Operands in the order of the declared fields (a sequence for a variadic one, None for an absent optional
        one). Without `result_types` the op's `infer` gives them; IRError says what does not fit."""
        flat, segments = self.spec.flatten(self.name, operands)
        self._init(flat, segments, regions, self.spec.check_attrs(self.name, attrs), loc)
        types = self.infer() if result_types is None else result_types
        self.results = tuple(OpResult(self, i, t) for i, t in enumerate(types))

    def _init(
        self,
        operands: Sequence[Value],
        segments: tuple[int, ...],
        regions: Sequence[Region],
        attrs: dict[str, Attribute],
        loc: Iterable[str],
    ) -> None:
        self.parent: Block | None = None
        self.prev_op: Op | None = None
        self.next_op: Op | None = None
        self.loc: Loc = tuple(loc)
        self.attrs = attrs
        self.segments = segments
        self._operands: list[Value] = list(operands)
        for i, v in enumerate(self._operands):
            v._uses[(self, i)] = None  # pyright: ignore[reportPrivateUsage]
        self.regions: list[Region] = []
        for r in regions:
            self.add_region(r)
        self.results: tuple[OpResult, ...] = ()

    @classmethod
    def create(
        cls,
        operands: Sequence[Value],
        segments: tuple[int, ...],
        regions: Sequence[Region],
        attrs: Mapping[str, Attribute],
        result_types: Sequence[Type],
        loc: Iterable[str] = (),
    ) -> Op:
        """An op from its raw parts, unchecked: for the parser and for cloning; `verify` comes later."""
        op = cls.__new__(cls)
        op._init(operands, segments, regions, dict(attrs), loc)
        op.results = tuple(OpResult(op, i, t) for i, t in enumerate(result_types))
        return op

    def __repr__(self) -> str:
        return f"<{self.name} {' '.join(self.loc)}>"

    # What an op class overrides.

    def infer(self) -> Sequence[Type]:
        """Result types from operands and attributes."""
        raise NotImplementedError(f"{self.name} has no infer method: give result_types")

    def verify(self) -> None:
        """Raise IRError, one sentence, if the op is not valid; structure and field kinds are checked before."""

    # Operands.

    @property
    def operands(self) -> tuple[Value, ...]:
        return tuple(self._operands)

    def set_operand(self, index: int, value: Value) -> None:
        """Replace one operand."""
        old = self._operands[index]
        old._uses.pop((self, index), None)  # pyright: ignore[reportPrivateUsage]
        self._operands[index] = value
        value._uses[(self, index)] = None  # pyright: ignore[reportPrivateUsage]

    def set_operands(self, operands: Sequence[Value], segments: tuple[int, ...] | None = None) -> None:
        """Replace all operands; `segments` as `OpSpec.flatten` gives them, needed if their number changes."""
        self.drop_operands()
        self._operands = list(operands)
        if segments is not None:
            self.segments = segments
        for i, v in enumerate(self._operands):
            v._uses[(self, i)] = None  # pyright: ignore[reportPrivateUsage]

    def drop_operands(self) -> None:
        for i, v in enumerate(self._operands):
            v._uses.pop((self, i), None)  # pyright: ignore[reportPrivateUsage]
        self._operands = []

    @property
    def result(self) -> OpResult:
        """The only result."""
        assert len(self.results) == 1, f"{self.name} has {len(self.results)} results"
        return self.results[0]

    # Structure.

    def add_region(self, region: Region) -> None:
        region.parent = self
        self.regions.append(region)

    @property
    def parent_op(self) -> Op | None:
        return None if self.parent is None or self.parent.parent is None else self.parent.parent.parent

    def walk(self) -> Iterator[Op]:
        """This op and every op inside it, parents first. Ops may be erased while walking if already yielded."""
        yield self
        for region in self.regions:
            for block in region.blocks:
                for op in block.ops:
                    yield from op.walk()

    def detach(self) -> Op:
        """Take the op out of its block, keeping its operands."""
        if self.parent is not None:
            self.parent.unlink(self)
        return self

    def erase(self) -> None:
        """Remove an op whose results have no uses, with everything in its regions."""
        for r in self.results:
            assert r.use_count == 0, f"{self.name} is erased while in use"
        self.detach()
        for op in list(self.walk()):
            op.drop_operands()

    def is_before(self, other: Op) -> bool:
        """Whether this op comes before `other` in the same block (linear in the block)."""
        op = self.next_op
        while op is not None:
            if op is other:
                return True
            op = op.next_op
        return False

    def clone(self, values: dict[Value, Value] | None = None) -> Op:
        """A detached deep copy; `values` maps outer values to new ones and gains the copies' results."""
        mapping = {} if values is None else values
        copy = type(self).create(
            [mapping.get(v, v) for v in self._operands],
            self.segments,
            [],
            self.attrs,
            [r.type for r in self.results],
            self.loc,
        )
        for old, new in zip(self.results, copy.results, strict=True):
            new.hint = old.hint
            mapping[old] = new
        for region in self.regions:
            copy.add_region(region.clone(mapping))
        return copy


class Block:
    """A list of ops with arguments."""

    __slots__ = ("args", "first", "last", "parent")

    def __init__(self, arg_types: Sequence[Type] = (), hints: Sequence[str | None] = ()) -> None:
        self.parent: Region | None = None
        self.first: Op | None = None
        self.last: Op | None = None
        names = [*hints, *[None] * (len(arg_types) - len(hints))]
        self.args: list[BlockArgument] = [
            BlockArgument(self, i, t, h) for i, (t, h) in enumerate(zip(arg_types, names, strict=True))
        ]

    @property
    def ops(self) -> Iterator[Op]:
        """The ops in order; the one just given may be erased or moved."""
        op = self.first
        while op is not None:
            following = op.next_op
            yield op
            op = following

    @property
    def terminator(self) -> Op:
        """The last op."""
        assert self.last is not None, "the block is empty"
        return self.last

    def add_arg(self, type: Type, hint: str | None = None) -> BlockArgument:
        arg = BlockArgument(self, len(self.args), type, hint)
        self.args.append(arg)
        return arg

    def erase_arg(self, index: int) -> None:
        assert self.args[index].use_count == 0
        del self.args[index]
        for i, a in enumerate(self.args):
            a.index = i

    def append(self, op: OpT) -> OpT:
        """Add a detached op at the end and return it."""
        self.insert_before(op, None)
        return op

    def insert_before(self, op: Op, anchor: Op | None) -> None:
        """Insert a detached op before `anchor` (None: at the end)."""
        assert op.parent is None
        op.parent = self
        if anchor is None:
            op.prev_op, op.next_op = self.last, None
            if self.last is None:
                self.first = op
            else:
                self.last.next_op = op
            self.last = op
            return
        op.prev_op, op.next_op = anchor.prev_op, anchor
        if anchor.prev_op is None:
            self.first = op
        else:
            anchor.prev_op.next_op = op
        anchor.prev_op = op

    def unlink(self, op: Op) -> None:
        if op.prev_op is None:
            self.first = op.next_op
        else:
            op.prev_op.next_op = op.next_op
        if op.next_op is None:
            self.last = op.prev_op
        else:
            op.next_op.prev_op = op.prev_op
        op.parent = op.prev_op = op.next_op = None


class Region:
    """A list of blocks; in tcc almost always one."""

    __slots__ = ("blocks", "parent")

    def __init__(self, *blocks: Block) -> None:
        self.parent: Op | None = None
        self.blocks: list[Block] = []
        for b in blocks:
            self.add_block(b)

    def add_block(self, block: Block) -> Block:
        block.parent = self
        self.blocks.append(block)
        return block

    @property
    def block(self) -> Block:
        """The only block."""
        assert len(self.blocks) == 1, f"a region of {len(self.blocks)} blocks"
        return self.blocks[0]

    def clone(self, values: dict[Value, Value]) -> Region:
        copy = Region()
        for block in self.blocks:
            new = copy.add_block(Block([a.type for a in block.args], [a.hint for a in block.args]))
            values.update(zip(block.args, new.args, strict=True))
        for block, new in zip(self.blocks, copy.blocks, strict=True):
            for op in block.ops:
                new.insert_before(op.clone(values), None)
        return copy


def region(arg_types: Sequence[Type], body: Callable[[Block], None], hints: Sequence[str | None] = ()) -> Region:
    """A one-block region; `body` appends the ops."""
    block = Block(arg_types, hints)
    body(block)
    return Region(block)
