# SPDX-License-Identifier: Apache-2.0
"""The dims of a model's inputs: which are free, and which numbers bind them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from tcc.compiler.frontend.problems import Problem
from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError
from tcc.ir.expr import Dim, Sym
from tcc.ir.types import ANY_EXTENT, OptionalType, ScalarType, SequenceType, TensorType, Type

Shapes = Mapping[str, Any]
"""Extents by input name, None where a dim stays free. Of a sequence: the shape of each of its tensors; of an optional:
None where it is empty, else what its value takes."""


@dataclass
class Inputs:
    """Types of the model's inputs, in order, and the inputs that still have free dims."""

    types: dict[str, Type] = field(default_factory=dict[str, Type])
    free: dict[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    """Input name → its dims as text, `?` where one is free."""
    items: dict[str, tuple[TensorType, ...]] = field(default_factory=dict[str, "tuple[TensorType, ...]"])
    """Sequences of bound length: the types of their tensors."""


def real_inputs(model: onnx.ModelProto, given: Collection[str] = ()) -> list[onnx.ValueInfoProto]:
    """Inputs of the graph that are not initialisers, and those of `given` that are."""
    held = _held(model).difference(given)
    return [i for i in model.graph.input if i.name not in held]


def optional_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs whose initialiser is a default that a caller may replace: from IR version 4 on."""
    held = _held(model) if model.ir_version >= 4 else ()
    return [i for i in model.graph.input if i.name in held]


def hosted_inputs(model: onnx.ModelProto) -> list[str]:
    """Inputs that are sequences or optionals."""
    return [i.name for i in real_inputs(model) if not i.type.HasField("tensor_type")]


def _held(model: onnx.ModelProto) -> set[str]:
    return {t.name for t in model.graph.initializer} | {s.values.name for s in model.graph.sparse_initializer}


def identifier(text: str, taken: Iterable[str]) -> str:
    """A symbol name made of `text`, different from all that are taken."""
    base = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "d"
    base = base if base[0].isalpha() else f"d{base}"
    # Words of the expression syntax are no symbols.
    base = f"{base}_" if base in ("min", "max", "mod", "floordiv", "else", "zero") else base
    used = set(taken)
    name, count = base, 1
    while name in used:
        count += 1
        name = f"{base}_{count}"
    return name


class DimNames:
    """Symbols for ONNX's named and anonymous dims: one dim_param, one symbol."""

    def __init__(self) -> None:
        self._by_param: dict[str, str] = {}
        self.used: set[str] = set()

    def fresh(self, text: str) -> Sym:
        """A new symbol named after `text`."""
        name = identifier(text, self.used)
        self.used.add(name)
        return Sym(name)

    def of_param(self, param: str) -> Sym:
        """The symbol of a dim_param."""
        if param not in self._by_param:
            self._by_param[param] = self.fresh(param).name
        return Sym(self._by_param[param])


def declared_dims(info: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """Extents of a tensor value: a number, a dim_param, or None where anonymous; None if even the rank is unknown."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    out: list[int | str | None] = []
    for d in tensor.shape.dim:
        if d.HasField("dim_value") and d.dim_value >= 0:
            out.append(int(d.dim_value))
        else:
            # Some exporters write "?" for any unknown dim; it names nothing.
            out.append(d.dim_param if d.dim_param not in ("", "?") else None)
    return out


def bind_inputs(
    model: onnx.ModelProto,
    shapes: Shapes | None,
    names: DimNames,
    problems: list[Problem] | None = None,
    replaced: Collection[str] = (),
) -> Inputs:
    """Types of the inputs with the given shapes bound; InputError on an unknown input, wrong rank or contradiction.

    With `problems`, an input that tcc does not take is added there and left out. `replaced`: initialisers that are
    inputs here.
    """
    infos = real_inputs(model, replaced)
    everything = dict(shapes or {})
    result = Inputs()
    tensors = [i for i in infos if i.type.HasField("tensor_type")]
    held = {i.name for i in infos} - {i.name for i in tensors}
    given = {name: list(dims) for name, dims in everything.items() if name not in held}
    _check_names(given, infos)
    bound = _bound_params(given, tensors)
    for info in infos:
        try:
            if info.name in held:
                t = value_type(info.type, f'the input "{info.name}"')
            else:
                t = _type(info, given.get(info.name), bound, names)
        except InputError as e:
            if problems is None:
                raise
            problems.append(Problem(str(e)))
            continue
        result.types[info.name] = t
        if info.name in held and info.name in everything:
            _bind_form(info.name, t, everything[info.name], result)
        elif isinstance(t, TensorType) and info.name not in held and not t.is_static:
            result.free[info.name] = tuple(str(d) if isinstance(d, int) else "?" for d in t.shape)
    return result


def _type(
    info: onnx.ValueInfoProto, wanted: Sequence[int | None] | None, bound: Mapping[str, int], names: DimNames
) -> TensorType:
    """The type of one input under the extents given for it and for dim_params."""
    dtype = element_type(info.type.tensor_type.elem_type, f'the input "{info.name}"')
    declared = declared_dims(info)
    if declared is None and wanted is None:
        raise InputError(f'the input "{info.name}" has no rank; give its shape with --shape {info.name}=...')
    pattern = declared if declared is not None else [None] * len(wanted or ())
    shape: list[Dim] = []
    for i, d in enumerate(pattern):
        number = wanted[i] if wanted is not None else None
        if isinstance(d, int):
            shape.append(d)
        elif number is not None:
            shape.append(number)
        elif isinstance(d, str):
            shape.append(bound[d] if d in bound else names.of_param(d))
        else:
            shape.append(names.fresh(f"{info.name}_{i}"))
    return TensorType(tuple(shape), dtype)


def value_type(proto: onnx.TypeProto, what: str) -> Type:
    """The type of a value that is no plain tensor, or lies in one: extents that are not numbers are any extent.

    InputError for maps and sparse tensors, which tcc does not have.
    """
    kind = proto.WhichOneof("value")
    if kind == "sequence_type":
        return SequenceType(value_type(proto.sequence_type.elem_type, what))
    if kind == "optional_type":
        return OptionalType(value_type(proto.optional_type.elem_type, what))
    if kind != "tensor_type":
        raise InputError(f"{what} is of the kind {kind or 'no type'}, and tcc takes tensors, sequences and optionals")
    dtype = element_type(proto.tensor_type.elem_type, what)
    if not proto.tensor_type.HasField("shape"):
        return ScalarType(dtype)
    dims = [d.dim_value if d.HasField("dim_value") else ANY_EXTENT for d in proto.tensor_type.shape.dim]
    # Exporters and ONNX's own tests declare items of any rank as scalars.
    return TensorType(tuple(dims), dtype) if dims else ScalarType(dtype)


def _bind_form(name: str, t: Type, form: Any, into: Inputs) -> None:
    """Bind a sequence to the shapes of its tensors, an optional to None or to what its value is bound to."""
    if isinstance(t, OptionalType):
        into.types[name] = OptionalType(t.element, 0) if form is None else t.element
        if form is not None:
            _bind_form(name, t.element, form, into)
        return
    try:
        if isinstance(t, SequenceType):
            element = t.element
            assert isinstance(element, TensorType | ScalarType)
            into.items[name] = tuple(TensorType(tuple(map(int, s)), element.dtype) for s in form)
            into.types[name] = SequenceType(element, len(into.items[name]))
        elif isinstance(t, TensorType | ScalarType):
            into.types[name] = TensorType(tuple(map(int, form)), t.dtype)
    except (TypeError, ValueError):
        raise InputError(f'the shapes bind "{name}", which is {t}, to {form!r}') from None


def _check_names(given: Mapping[str, Sequence[int | None]], infos: Sequence[onnx.ValueInfoProto]) -> None:
    known = [i.name for i in infos]
    for name, dims in given.items():
        if name not in known:
            raise InputError(f'--shape names "{name}", and the inputs are {", ".join(known) or "none"}')
        for d in dims:
            if d is not None and d < 0:
                raise InputError(f'--shape gives "{name}" the extent {d}; extents are at least 0')


def _bound_params(given: Mapping[str, Sequence[int | None]], infos: Sequence[onnx.ValueInfoProto]) -> dict[str, int]:
    bound: dict[str, tuple[int, str]] = {}
    for info in infos:
        dims = given.get(info.name)
        declared = declared_dims(info)
        if dims is None or declared is None:
            continue
        text = "x".join(str(d) if isinstance(d, int) else "?" for d in declared) or "a scalar"
        if len(dims) != len(declared):
            raise InputError(f'--shape gives "{info.name}" {len(dims)} dims, and the model has it as {text}')
        for d, n in zip(declared, dims, strict=True):
            if n is None:
                continue
            if isinstance(d, int) and d != n:
                raise InputError(f'--shape gives "{info.name}" the extent {n} where the model has {d} ({text})')
            if isinstance(d, str):
                other = bound.setdefault(d, (n, info.name))
                if other[0] != n:
                    raise InputError(
                        f'--shape gives the dim "{d}" of "{info.name}" {n}, and that of "{other[1]}" {other[0]}'
                    )
    return {d: n for d, (n, _) in bound.items()}


def free_dims(model: onnx.ModelProto, shapes: Shapes | None = None) -> dict[str, tuple[str, ...]]:
    """Inputs that have free dims under `shapes`: name → dims as text, `?` where one is free."""
    return bind_inputs(model, shapes, DimNames(), []).free


def how_to_bind(free: Mapping[str, Sequence[str]]) -> str:
    """The sentence that asks for the free dims; "" if there are none."""
    if not free:
        return ""
    options = " ".join(f"--shape {name}={'x'.join(dims)}" for name, dims in free.items())
    return f"bind the free dims of {', '.join(free)} with {options}"
