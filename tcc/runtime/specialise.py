# SPDX-License-Identifier: Apache-2.0
"""Engines that are made as they are needed: one for each set of input shapes, and of values that decide shapes.

The runtime does not compile. Whoever has the compiler hands in a callback; the engines it makes are kept in a cache of
bounded size, the least recently used one going first.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tcc.errors import InputError
from tcc.runtime.cpu import memory
from tcc.runtime.dtypes import dtype_name
from tcc.runtime.engine import BoundCall, Engine, Inputs
from tcc.runtime.executor import LaunchTime, show_shape
from tcc.runtime.expr import evaluate, show
from tcc.runtime.signature import TensorSpec

Shape = tuple[int, ...]
Form = Any
"""The shape of a tensor, a tuple of the shapes of a sequence's tensors, or None for an optional without a value."""
Array = np.ndarray

SPECIALISATIONS = 16
"""How many engines are kept unless the caller says otherwise."""


@dataclass(frozen=True)
class Request:
    """What an engine is wanted for: the form of each input, and a way to read an input's value, which is asked only for
    inputs that decide shapes or attributes."""

    shapes: dict[str, Form]
    value: Callable[[str], Array]
    given: frozenset[str] = frozenset()
    """Inputs with a default that the caller gives nevertheless."""


Specialise = Callable[[Request], tuple[Engine, Sequence[str]]]
"""Makes the engine for a request, and names the inputs whose values it is right for alone."""


@dataclass
class _Entry:
    """An engine of the cache, and what it is right for."""

    given: frozenset[str]
    shapes: tuple[Form, ...]
    values: tuple[tuple[str, bytes], ...]
    engine: Engine
    used: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Declared(TensorSpec):
    """An input or output as the model declares it; of one without a rank, `shape` says nothing."""

    ranked: bool = True

    def __str__(self) -> str:
        return super().__str__() if self.ranked else f"{self.name}: {self.dtype}[...]"


class _Front:
    """Inputs and outputs as the model declares them."""

    def __init__(self, inputs: Sequence[Declared], outputs: Sequence[Declared]) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)


class SpecialisingEngine(Engine):
    """An engine whose shapes the caller decides: the first call with new ones makes an `Engine` for them.

    `prepare` makes one ahead of the first call. Two threads may call at once; one specialisation is made at a time.
    `optional` inputs have a default in the model.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[Declared],
        outputs: Sequence[Declared],
        specialise: Specialise,
        limit: int = SPECIALISATIONS,
        optional: Sequence[Declared] = (),
    ) -> None:
        if limit < 1:
            raise InputError(f"an engine keeps at least 1 specialisation, not {limit}")
        self._name = name
        self._inputs = tuple(inputs)
        self._signature = _Front(inputs, outputs)  # type: ignore[assignment]
        self._specialise = specialise
        self._limit = limit
        self._optional = {spec.name: spec for spec in optional}
        self._entries: tuple[_Entry, ...] = ()
        self._clock = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._name

    @property
    def engines(self) -> list[Engine]:
        """The specialisations there are, the least recently used first."""
        return [e.engine for e in sorted(self._entries, key=lambda e: e.used)]

    @property
    def kernels(self) -> dict[str, dict[str, Any]]:
        """The kernels of all specialisations."""
        return {key: row for engine in self.engines for key, row in engine.kernels.items()}

    @property
    def report(self) -> list[dict[str, Any]]:
        """What the compiler had to say of all specialisations, each sentence once."""
        rows: list[dict[str, Any]] = []
        for engine in self.engines:
            rows += [row for row in engine.report if row not in rows]
        return rows

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights of all specialisations; those that share memory count once."""
        blocks = {block: nbytes for engine in self.engines for block, nbytes in engine.data.weight_blocks()}
        return sum(blocks.values())

    def __repr__(self) -> str:
        wanted = ", ".join(map(str, self.inputs))
        given = ", ".join(spec.name for spec in self.outputs)
        return f"<tcc engine {self.name}, {len(self._entries)} specialisations: ({wanted}) -> ({given})>"

    def __getattr__(self, name: str) -> Any:
        if name in ("data", "executor"):
            raise AttributeError(f"an engine with free dims has no {name}: its specialisations (prepare, engines) have")
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def run(self, inputs: Inputs, out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        engine, values = self._engine(inputs)
        return engine.run(values, out)

    def bind(self, inputs: Inputs, outputs: Mapping[str, Any] | None = None) -> BoundCall:
        """As `Engine.bind`. Values that decide shapes are read now: changing them later changes nothing."""
        engine, values = self._engine(inputs)
        return engine.bind(values, outputs)

    def profile(self, inputs: Inputs) -> list[LaunchTime]:
        engine, values = self._engine(inputs)
        return engine.profile(values)

    def prepare(self, shapes: Mapping[str, Sequence[int]], values: Mapping[str, Any] | None = None) -> Engine:
        """The engine for these input shapes, made now if it is not there. `values`: inputs that decide shapes.

        Inputs of fixed shape, and dims that others of the same name bind, need not be given. Raises InputError for a
        shape that does not fit, and where a value is needed.
        """
        known = {name: np.asarray(v) for name, v in (values or {}).items()}
        complete = self._complete(
            {**{n: a.shape for n, a in known.items()}, **{n: tuple(s) for n, s in shapes.items()}}
        )
        given = frozenset(n for n in complete if n in self._optional)

        def value(name: str) -> Array:
            if name not in known:
                raise InputError(
                    f"the value of the input '{name}' decides a shape: give it to prepare as values={{'{name}': ...}}"
                )
            return known[name]

        return self._entry(given, complete, value).engine

    def keep(self, engine: Engine) -> None:
        """Take in an engine for the fixed shapes of all inputs."""
        shapes = tuple(tuple(int(d) for d in spec.shape) for spec in engine.inputs)
        with self._lock:
            self._entries = (*self._entries, _Entry(frozenset(), shapes, (), engine, next(self._clock)))

    def save(self, path: Any) -> None:
        raise InputError(
            f"the engine of {self.name} makes an engine for each set of input shapes and of values that decide them, "
            "and a file holds one: save what its prepare(shapes) returns"
        )

    def close(self) -> None:
        """Drop all specialisations; the next call makes a new one."""
        with self._lock:
            entries, self._entries = self._entries, ()
        for entry in entries:
            entry.engine.close()

    # Finding and making engines.

    def _engine(self, inputs: Inputs) -> tuple[Engine, Inputs]:
        given = frozenset[str]()
        if self._optional and isinstance(inputs, Mapping):
            given = frozenset(self._optional).intersection(inputs)
        plain = {n: v for n, v in inputs.items() if n not in given} if given and isinstance(inputs, Mapping) else inputs
        ordered = self._ordered(plain)
        named = dict(zip((s.name for s in self.inputs), ordered, strict=True))
        if given:
            assert isinstance(inputs, Mapping)
            named |= {n: inputs[n] for n in self._optional if n in given}
        shapes = {n: _form(v, n) for n, v in named.items()}
        entry = self._find(given, tuple(shapes.values()), lambda n: _host(named[n], n))
        if entry is None:
            self._check(named, shapes)
            entry = self._entry(given, shapes, lambda n: _host(named[n], n))
        return entry.engine, named if given else ordered

    def _entry(self, given: frozenset[str], shapes: Mapping[str, Form], value: Callable[[str], Array]) -> _Entry:
        key = tuple(shapes.values())
        entry = self._find(given, key, value)
        if entry is not None:
            return entry
        with self._lock:
            entry = self._find(given, key, value)  # another thread may have made it meanwhile
            if entry is not None:
                return entry
            engine, deciding = self._specialise(Request(dict(shapes), value, given))
            facts = tuple((n, _content(value(n))) for n in deciding)
            entry = _Entry(given, key, facts, engine, next(self._clock))
            kept = sorted((*self._entries, entry), key=lambda e: e.used)
            self._entries = tuple(kept[-self._limit :])
        for old in kept[: -self._limit]:
            old.engine.close()
        return entry

    def _find(self, given: frozenset[str], shapes: tuple[Form, ...], value: Callable[[str], Array]) -> _Entry | None:
        read: dict[str, bytes] = {}
        for entry in self._entries:
            if entry.shapes != shapes or entry.given != given:
                continue
            for name, content in entry.values:
                if name not in read:
                    read[name] = _content(value(name))
                if read[name] != content:
                    break
            else:
                entry.used = next(self._clock)
                return entry
        return None

    # What the model says of shapes.

    def _specs(self, names: Sequence[str]) -> list[Declared]:
        by = {spec.name: spec for spec in self._inputs} | self._optional
        unknown = [n for n in names if n not in by]
        if unknown:
            raise InputError(
                f"the engine has no input '{unknown[0]}'; its inputs are {', '.join(map(str, by.values()))}"
            )
        return [by[n] for n in names]

    def _check(self, named: Mapping[str, Any], shapes: Mapping[str, Form]) -> None:
        """Raises InputError for what no specialisation could take, before one is made."""
        tensors: dict[str, Shape] = {}
        for spec, shape in zip(self._specs(list(shapes)), shapes.values(), strict=True):
            if spec.type is not None:
                continue  # the engine that is made checks it
            value = named[spec.name]
            dtype = dtype_name(value.dtype) if isinstance(value, np.ndarray | np.generic) else spec.dtype
            if dtype != spec.dtype and spec.dtype != "?":
                raise InputError(f"the input '{spec.name}' is {dtype} and the engine takes {spec.dtype}")
            if value is None or isinstance(value, list | tuple):
                raise InputError(f"the input {spec} is a {type(value).__name__} and the engine takes an array")
            _fits(spec, shape)
            tensors[spec.name] = shape
        self._symbols(tensors)

    def _symbols(self, shapes: Mapping[str, Shape]) -> dict[str, int]:
        """The free dims that shapes bind; raises InputError where two of one name differ."""
        found: dict[str, tuple[int, str]] = {}
        for spec, shape in zip(self._specs(list(shapes)), shapes.values(), strict=True):
            for dim, extent in zip(spec.shape, shape, strict=False):
                if isinstance(dim, str):
                    before, where = found.setdefault(dim, (extent, spec.name))
                    if before != extent:
                        raise InputError(
                            f"the dim {dim} of the input '{spec.name}' is {extent} and that of '{where}' is {before}"
                        )
        return {name: extent for name, (extent, _) in found.items()}

    def _complete(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Shapes of all inputs, from those given and the dims they bind."""
        for spec, shape in zip(self._specs(list(shapes)), shapes.values(), strict=True):
            _fits(spec, shape)
        symbols = self._symbols(shapes)
        out: dict[str, Shape] = {}
        for spec in self._inputs:
            if spec.name in shapes:
                out[spec.name] = shapes[spec.name]
            elif spec.ranked and all(isinstance(d, int) or d in symbols for d in spec.shape):
                out[spec.name] = tuple(evaluate(d, symbols) for d in spec.shape)
            else:
                raise InputError(f"the shape of the input {spec} is not given to prepare")
        return out | {n: s for n, s in shapes.items() if n in self._optional}


def _fits(spec: Declared, shape: Shape) -> None:
    wanted = spec.shape
    if not spec.ranked:
        return
    if len(wanted) != len(shape) or any(isinstance(d, int) and d != n for d, n in zip(wanted, shape, strict=True)):
        raise InputError(
            f"the input '{spec.name}' has the shape {show_shape(shape)} and the engine takes "
            f"{show_shape([show(d) for d in wanted])}"
        )


def _form(value: Any, name: str) -> Form:
    """The form of what a caller gives for an input."""
    if isinstance(value, np.ndarray):
        return value.shape
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return np.shape(value) if _texts(value) else tuple(_form(v, name) for v in value)
    shape = getattr(value, "shape", None)
    if shape is None and hasattr(value, "__cuda_array_interface__"):
        shape = value.__cuda_array_interface__["shape"]
    if shape is not None:
        return tuple(int(d) for d in shape)
    return () if isinstance(value, str | bytes) else memory.as_array(value, name).shape


def _texts(value: Any) -> bool:
    """Whether nested lists hold texts: they are a tensor of strings, not a sequence."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, str | bytes)


def _host(value: Any, name: str) -> Array:
    """A caller's tensor on the host: values that decide shapes are read there."""
    for method in ("numpy", "get"):  # tensors in GPU memory: torch and tcc, cupy
        if hasattr(value, "__cuda_array_interface__") and hasattr(value, method):
            value = value.cpu() if hasattr(value, "cpu") else value
            return np.asarray(getattr(value, method)())
    return memory.as_array(value, name)


def _content(array: Array) -> bytes:
    return array.tobytes() if array.dtype != object else repr(array.tolist()).encode()
