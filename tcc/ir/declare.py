# SPDX-License-Identifier: Apache-2.0
"""How an op is declared: a class with typed fields. Parser, printer, verifier and `spec/ops.md` derive from it.

    @register
    class Softmax(Op):
        '''...'''
        name = "graph.softmax"
        x = Operand()
        axis = Attr(INT, -1)
        y = Result()

Declaration order is the order of operands, results and regions, and of attributes in text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast, overload

from tcc.errors import InputError
from tcc.ir.attributes import Attribute, Domain, IndexMap, Resource, frozen
from tcc.ir.core import Op, OpResult, Region, Value
from tcc.ir.expr import Expr
from tcc.ir.types import DType, Type


class IRError(InputError):
    """IR that is not valid: one sentence that names the op, the value and what would be right."""


T = TypeVar("T")
_MISSING: Any = object()


class OperandField:
    """Base of operand fields; `index` is the field's place among them."""

    kind = "one"

    def __init__(self) -> None:
        self.index = -1
        self.attr_name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.attr_name = name

    def values(self, op: Op) -> tuple[Value, ...]:
        start = sum(op.segments[: self.index])
        return op.operands[start : start + op.segments[self.index]]


class Operand(OperandField):
    """Exactly one operand."""

    @overload
    def __get__(self, op: None, owner: type) -> Operand: ...
    @overload
    def __get__(self, op: Op, owner: type) -> Value: ...
    def __get__(self, op: Op | None, owner: type) -> Operand | Value:
        return self if op is None else self.values(op)[0]


class OptionalOperand(OperandField):
    """One operand or none."""

    kind = "optional"

    @overload
    def __get__(self, op: None, owner: type) -> OptionalOperand: ...
    @overload
    def __get__(self, op: Op, owner: type) -> Value | None: ...
    def __get__(self, op: Op | None, owner: type) -> OptionalOperand | Value | None:
        if op is None:
            return self
        values = self.values(op)
        return values[0] if values else None


class Variadic(OperandField):
    """Any number of operands."""

    kind = "variadic"

    @overload
    def __get__(self, op: None, owner: type) -> Variadic: ...
    @overload
    def __get__(self, op: Op, owner: type) -> tuple[Value, ...]: ...
    def __get__(self, op: Op | None, owner: type) -> Variadic | tuple[Value, ...]:
        return self if op is None else self.values(op)


class Result:
    """One result."""

    variadic = False

    def __init__(self) -> None:
        self.index = -1
        self.attr_name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.attr_name = name

    @overload
    def __get__(self, op: None, owner: type) -> Result: ...
    @overload
    def __get__(self, op: Op, owner: type) -> OpResult: ...
    def __get__(self, op: Op | None, owner: type) -> Result | OpResult:
        return self if op is None else op.results[self.index]


class VariadicResult(Result):
    """Any number of results; the last result field."""

    variadic = True

    @overload
    def __get__(self, op: None, owner: type) -> VariadicResult: ...  # pyright: ignore[reportIncompatibleMethodOverride]
    @overload
    def __get__(self, op: Op, owner: type) -> tuple[OpResult, ...]: ...
    def __get__(self, op: Op | None, owner: type) -> VariadicResult | tuple[OpResult, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self if op is None else op.results[self.index :]


class RegionField:
    """One region."""

    variadic = False

    def __init__(self) -> None:
        self.index = -1
        self.attr_name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.attr_name = name

    @overload
    def __get__(self, op: None, owner: type) -> RegionField: ...
    @overload
    def __get__(self, op: Op, owner: type) -> Region: ...
    def __get__(self, op: Op | None, owner: type) -> RegionField | Region:
        return self if op is None else op.regions[self.index]


class VariadicRegion(RegionField):
    """Any number of regions; the last region field."""

    variadic = True

    @overload
    def __get__(self, op: None, owner: type) -> VariadicRegion: ...  # pyright: ignore[reportIncompatibleMethodOverride]
    @overload
    def __get__(self, op: Op, owner: type) -> list[Region]: ...
    def __get__(self, op: Op | None, owner: type) -> VariadicRegion | list[Region]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self if op is None else op.regions[self.index :]


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What values an attribute may have: a name for docs and a test."""

    name: str
    accepts: Callable[[Any], bool] = field(compare=False)
    convert: Callable[[Any], Any] | None = field(default=None, compare=False)


def _is_int(v: Any) -> bool:
    return isinstance(v, int) and not isinstance(v, bool)


def _tuple_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, tuple) and all(test(x) for x in cast("tuple[Any, ...]", v))


BOOLEAN: Kind[bool] = Kind(
    "bool", lambda v: isinstance(v, bool), lambda v: bool(v) if _is_int(v) and v in (0, 1) else v
)
INT: Kind[int] = Kind("int", _is_int)
FLOAT: Kind[float] = Kind("float", lambda v: isinstance(v, float), lambda v: float(v) if _is_int(v) else v)
STR: Kind[str] = Kind("str", lambda v: isinstance(v, str))
INTS: Kind[tuple[int, ...]] = Kind("ints", _tuple_of(_is_int))
FLOATS: Kind[tuple[float, ...]] = Kind("floats", _tuple_of(lambda v: isinstance(v, float)))
STRS: Kind[tuple[str, ...]] = Kind("strs", _tuple_of(lambda v: isinstance(v, str)))
DTYPE: Kind[DType] = Kind("dtype", lambda v: isinstance(v, DType))
TYPE: Kind[Type] = Kind("type", lambda v: isinstance(v, Type))
TYPES: Kind[tuple[Type, ...]] = Kind("types", _tuple_of(lambda v: isinstance(v, Type)))
DIMS: Kind[tuple[Any, ...]] = Kind("dims", _tuple_of(lambda v: _is_int(v) or isinstance(v, Expr)))
DOMAIN: Kind[Domain] = Kind("domain", lambda v: isinstance(v, Domain))
MAP: Kind[IndexMap] = Kind("map", lambda v: isinstance(v, IndexMap))
MAPS: Kind[tuple[IndexMap, ...]] = Kind("maps", _tuple_of(lambda v: isinstance(v, IndexMap)))
RESOURCE: Kind[Resource] = Kind("resource", lambda v: isinstance(v, Resource))
DICT: Kind[dict[str, Any]] = Kind("dict", lambda v: isinstance(v, dict))
ANY: Kind[Any] = Kind("any", lambda v: True)


def one_of(*words: str) -> Kind[str]:
    """The kind of a string attribute with a fixed set of values."""
    return Kind(" | ".join(words), lambda v: v in words)


class Attr(Generic[T]):
    """An attribute of a kind; with a default it may be left out (and is not printed at its default)."""

    def __init__(self, kind: Kind[T], default: T | None = _MISSING) -> None:
        self.kind = kind
        self.default: Any = default
        self.attr_name = ""

    @property
    def required(self) -> bool:
        return self.default is _MISSING

    def __set_name__(self, owner: type, name: str) -> None:
        self.attr_name = name

    @overload
    def __get__(self, op: None, owner: type) -> Attr[T]: ...
    @overload
    def __get__(self, op: Op, owner: type) -> T: ...
    def __get__(self, op: Op | None, owner: type) -> Attr[T] | T:
        return self if op is None else cast(T, op.attrs[self.attr_name])

    def __set__(self, op: Op, value: T) -> None:
        op.attrs[self.attr_name] = self.check(op.name, value)

    def check(self, op_name: str, value: Any) -> Attribute:
        """value as an attribute of this kind; IRError if it is not one."""
        try:
            value = frozen(value)
        except TypeError as e:
            raise IRError(f"{op_name}: {self.attr_name} must be {self.kind.name}, but {e}") from None
        if self.kind.convert is not None:
            value = self.kind.convert(value)
        if value is None and self.default is None:
            return None
        if not self.kind.accepts(value):
            raise IRError(f"{op_name}: {self.attr_name} must be {self.kind.name}, not {value!r}")
        return value


@dataclass
class OpSpec:
    """The fields of one op class, in declaration order."""

    operands: list[OperandField] = field(default_factory=list[OperandField])
    attrs: dict[str, Attr[Any]] = field(default_factory=dict[str, Attr[Any]])
    results: list[Result] = field(default_factory=list[Result])
    regions: list[RegionField] = field(default_factory=list[RegionField])

    @property
    def needs_segments(self) -> bool:
        """Whether the number of operands alone does not say which field each belongs to."""
        return sum(f.kind != "one" for f in self.operands) > 1

    def flatten(
        self, name: str, groups: Sequence[Value | Sequence[Value] | None]
    ) -> tuple[list[Value], tuple[int, ...]]:
        """(all operands, operands per field) from one entry per field; trailing optional ones may be missing."""
        if len(groups) > len(self.operands):
            raise IRError(f"{name} takes {len(self.operands)} operand fields, not {len(groups)}")
        flat: list[Value] = []
        counts: list[int] = []
        for i, f in enumerate(self.operands):
            group = groups[i] if i < len(groups) else None
            values = [] if group is None else [group] if isinstance(group, Value) else list(group)
            if (f.kind == "one" and len(values) != 1) or (f.kind == "optional" and len(values) > 1):
                raise IRError(f"{name}: operand {f.attr_name} takes {f.kind}, not {len(values)}")
            flat += values
            counts.append(len(values))
        return flat, tuple(counts)

    def derive_segments(self, name: str, count: int) -> tuple[int, ...]:
        """Operands per field where at most one field is not exactly one."""
        spare = count - sum(f.kind == "one" for f in self.operands)
        flexible = [f for f in self.operands if f.kind != "one"]
        if spare < 0 or (spare and not flexible) or (spare > 1 and flexible[0].kind == "optional"):
            raise IRError(f"{name} does not take {count} operands")
        return tuple(1 if f.kind == "one" else spare for f in self.operands)

    def check_attrs(self, name: str, given: dict[str, Any]) -> dict[str, Attribute]:
        """Declared attributes, checked and completed with defaults; `dialect.word` names pass as they are."""
        out: dict[str, Attribute] = {}
        for key, attr in self.attrs.items():
            if key in given:
                out[key] = attr.check(name, given[key])
            elif attr.required:
                raise IRError(f"{name} needs the attribute {key} ({attr.kind.name})")
            else:
                out[key] = frozen(attr.default)
        for key, value in given.items():
            if key in out:
                continue
            if "." not in key:
                raise IRError(f"{name} has no attribute {key}; it has {', '.join(self.attrs) or 'none'}")
            out[key] = frozen(value)
        return out


OPS: dict[str, type[Op]] = {}
"""Every registered op class by name."""

OpClass = TypeVar("OpClass", bound=type[Op])


def register(cls: OpClass) -> OpClass:
    """Class decorator: collect the fields of an op class (its bases' first) and make the op known to the parser."""
    spec = OpSpec()
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, OperandField):
                value.index = len(spec.operands)
                spec.operands.append(value)
            elif isinstance(value, Attr):
                spec.attrs[name] = value
            elif isinstance(value, Result):
                value.index = len(spec.results)
                spec.results.append(value)
            elif isinstance(value, RegionField):
                value.index = len(spec.regions)
                spec.regions.append(value)
    cls.spec = spec
    if cls.name in OPS:
        raise ValueError(f"{cls.name} is declared twice")
    OPS[cls.name] = cls
    return cls
