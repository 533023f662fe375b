# SPDX-License-Identifier: Apache-2.0
"""The dims of a model's inputs: which are free, and which numbers bind them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError
from tcc.ir.expr import Dim, Sym
from tcc.ir.types import TensorType

Shapes = Mapping[str, Sequence[int | None]]


@dataclass
class Inputs:
    """Types of the model's inputs, in order, and the inputs that still have free dims."""

    types: dict[str, TensorType] = field(default_factory=dict[str, TensorType])
    free: dict[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    """Input name → its dims as text, `?` where one is free."""


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs of the graph that are not initialisers."""
    held = {t.name for t in model.graph.initializer} | {s.values.name for s in model.graph.sparse_initializer}
    return [i for i in model.graph.input if i.name not in held]


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


def bind_inputs(model: onnx.ModelProto, shapes: Shapes | None, names: DimNames) -> Inputs:
    """Types of the inputs with the given shapes bound; InputError on an unknown input, wrong rank or contradiction."""
    infos = real_inputs(model)
    given = {name: list(dims) for name, dims in (shapes or {}).items()}
    _check_names(given, infos)
    bound = _bound_params(given, infos)
    result = Inputs()
    for info in infos:
        if not info.type.HasField("tensor_type"):
            kind = info.type.WhichOneof("value") or "no type"
            raise InputError(f'the input "{info.name}" has {kind}, and tcc takes tensors as inputs')
        dtype = element_type(info.type.tensor_type.elem_type, f'the input "{info.name}"')
        declared = declared_dims(info)
        wanted = given.get(info.name)
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
        result.types[info.name] = TensorType(tuple(shape), dtype)
        if not all(isinstance(d, int) for d in shape):
            result.free[info.name] = tuple(str(d) if isinstance(d, int) else "?" for d in shape)
    return result


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
    return bind_inputs(model, shapes, DimNames()).free


def how_to_bind(free: Mapping[str, Sequence[str]]) -> str:
    """The sentence that asks for the free dims; "" if there are none."""
    if not free:
        return ""
    options = " ".join(f"--shape {name}={'x'.join(dims)}" for name, dims in free.items())
    return f"bind the free dims of {', '.join(free)} with {options}"
