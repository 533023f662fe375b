# SPDX-License-Identifier: Apache-2.0
"""What a device must do to run engines: `Executor` (an engine on a device) and `Context` (one caller's state).

An executor is made once for an engine; it checks the device, loads the kernels and the weights. A context holds what
one call at a time needs: the arena, pool buffers, symbol values, graphs. `tcc.runtime.engine.Engine` does the rest
for every device: names, dtypes, shapes, symbols, the list of idle contexts. `tcc.runtime.program.ProgramContext` runs
the control flow of a schedule over a few primitive methods, so a device only writes those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcc.errors import InputError

if TYPE_CHECKING:
    from tcc.runtime.container import EngineData


@dataclass(slots=True)
class Value:
    """A dense, C-contiguous tensor that belongs to a caller.

    `pointer` is its address on `device` ("cpu", or "cuda:0"); `owner` is the object that keeps the memory alive (for
    numpy the array itself). `dtype` is a name of the engine format. A value of the device "host" is no tensor in
    memory but the object `owner` (`tcc.runtime.host_values`).
    """

    pointer: int
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    owner: Any
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class LaunchTime:
    """How long one op of the schedule took in one run.

    `name` is the kernel's id, the function for a host call, and the op itself for memset and copy.
    """

    name: str
    op: str
    seconds: float
    loc: tuple[str, ...]
    segment: str = ""


class Executor(ABC):
    """An engine loaded on a device. Every method may be called from several threads at once."""

    def __init__(self, data: EngineData) -> None:
        """Check the device against ``data.target``, load kernels and weights; raises FailureError in one sentence."""
        self.data = data

    @abstractmethod
    def accept(self, value: object, name: str) -> Value:
        """View a caller's tensor (numpy, DLPack, ``__cuda_array_interface__``) as a Value; a strided one is copied.

        Dtype and shape are checked by the engine afterwards; raises InputError, naming `name`, for an object that is
        no tensor.
        """

    @abstractmethod
    def accept_output(self, value: object, name: str) -> Value:
        """View a caller's object as memory to write results to; raises InputError where it is read-only or strided."""

    @abstractmethod
    def empty(self, dtype: str, shape: tuple[int, ...], inputs: Sequence[Value]) -> Value:
        """Fresh memory for an output of a call with these inputs: where they are, on the host or on the device."""

    @abstractmethod
    def deliver(self, value: Value) -> Any:
        """What a caller gets for an output made by `empty` or ``Context.result``: a numpy or a device array."""

    @abstractmethod
    def context(self) -> Context:
        """A new context; the engine keeps and reuses it."""

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """Facts about the device for reports: at least ``{"device": str}``."""


class Context(ABC):
    """One caller's state on a device; used by one thread at a time."""

    @abstractmethod
    def run(self, inputs: Sequence[Value], outputs: Sequence[Value | None], symbols: Mapping[str, int]) -> None:
        """Execute the schedule; host outputs hold their values on return, device outputs once the stream gets there.

        `inputs` and `outputs` follow the manifest; a Value may be on the host or the device. An output is None where
        its size is known only afterwards: `result` makes it.
        """

    @abstractmethod
    def host_result(self, index: int) -> Value:
        """After `run`: output `index`, which lives on the host (strings, a sequence, an optional), as a copy."""

    @abstractmethod
    def result(self, index: int, inputs: Sequence[Value], into: Value | None = None) -> Value:
        """After `run`: the value of output `index`, whose buffer is not the caller's memory, copied out.

        Into fresh memory as `Executor.empty` makes it, or into `into`, whose dtype and shape the context checks with
        `check_result`.
        """

    def bind(
        self, inputs: Sequence[Value], outputs: Sequence[Value | None], symbols: Mapping[str, int]
    ) -> Callable[[], None]:
        """A call of `run` with these arguments, prepared as far as the device can."""
        return lambda: self.run(inputs, outputs, symbols)

    @abstractmethod
    def profile(
        self, inputs: Sequence[Value], outputs: Sequence[Value | None], symbols: Mapping[str, int]
    ) -> list[LaunchTime]:
        """Run once, one op after another, timing each."""

    def close(self) -> None:
        """Release what the context holds. The default leaves it to the garbage collector."""
        return


def check_result(name: str, shape: tuple[int, ...], into: Value) -> None:
    """Refuse memory given for output `name` whose shape is not the one that data decided."""
    if into.shape != shape:
        raise InputError(
            f"the output '{name}' came out with the shape {show_shape(shape)}, "
            f"the array given for it has {show_shape(into.shape)}"
        )


def show_shape(shape: Sequence[object]) -> str:
    """A shape for people: ``1x3x224x224``, or ``scalar``."""
    return "x".join(map(str, shape)) if shape else "scalar"
