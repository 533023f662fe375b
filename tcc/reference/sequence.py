# SPDX-License-Identifier: Apache-2.0
"""Sequences (Python lists of arrays) and optionals (a value, or None when empty)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tcc.reference._numeric import Array, ints, one_axis, scalar


def sequence_construct(*inputs: Array) -> list[Array]:
    """A sequence of the inputs. ONNX SequenceConstruct."""
    return list(inputs)


def sequence_empty(*, dtype: DTypeLike | None = None) -> list[Array]:
    """A sequence of no tensors; `dtype` is its static type alone. ONNX SequenceEmpty."""
    return []


def sequence_at(input_sequence: list[Array], position: Any) -> Array:
    """The tensor at `position`, negative from the end. ONNX SequenceAt. Raises ValueError outside [-n, n - 1]."""
    return input_sequence[one_axis(position, len(input_sequence), "position")]


def sequence_erase(input_sequence: list[Array], position: Any = None) -> list[Array]:
    """The sequence without the tensor at `position` (the last when absent). ONNX SequenceErase."""
    at = one_axis(-1 if position is None else position, len(input_sequence), "position")
    return [*input_sequence[:at], *input_sequence[at + 1 :]]


def sequence_insert(input_sequence: list[Array], tensor: Array, position: Any = None) -> list[Array]:
    """The sequence with `tensor` before `position` in [-n, n] (at the end when absent). ONNX SequenceInsert."""
    n = len(input_sequence)
    at = n if position is None else int(scalar(position))
    if not -n <= at <= n:
        raise ValueError(f"position {at} is outside [{-n}, {n}] of a sequence of {n} tensors.")
    at = at + n if at < 0 else at
    return [*input_sequence[:at], tensor, *input_sequence[at:]]


def sequence_items(input_sequence: list[Array]) -> tuple[Array, ...]:
    """The tensors of a sequence, each a result of its own: what a compiler that knows their number calls."""
    return tuple(input_sequence)


def sequence_length(input_sequence: list[Array]) -> Array:
    """The number of tensors, an int64 scalar. ONNX SequenceLength."""
    return np.array(len(input_sequence), np.int64)


def split_to_sequence(data: Array, split: Any = None, *, axis: int = 0, keepdims: int = 1) -> list[Array]:
    """`data` cut along `axis` into chunks of a scalar `split` (1 when absent) or of the lengths in a 1-D one.

    ONNX SplitToSequence. keepdims=0 drops the axis where `split` is absent. Raises ValueError on bad lengths.
    """
    data = np.asarray(data)
    at = one_axis(axis, data.ndim)
    extent = data.shape[at]
    if split is None or np.ndim(split) == 0:
        chunk = 1 if split is None else int(scalar(split))
        if chunk < 1:
            raise ValueError(f"split {chunk} is not positive.")
        cuts = list(range(chunk, extent, chunk))
    else:
        lengths = ints(split)
        if sum(lengths) != extent:
            raise ValueError(f"split {list(lengths)} does not add up to {extent}, the extent of axis {at}.")
        cuts = np.cumsum(lengths)[:-1].tolist()
    parts = np.split(data, cuts, axis=at)
    return [np.squeeze(p, axis=at) for p in parts] if split is None and not keepdims else list(parts)


def concat_from_sequence(input_sequence: list[Array], *, axis: int, new_axis: int = 0) -> Array:
    """The tensors joined along `axis`, or stacked along a new one. ONNX ConcatFromSequence."""
    rank = np.ndim(input_sequence[0])
    if new_axis:
        return np.stack(input_sequence, axis=one_axis(axis, rank + 1))
    return np.concatenate(input_sequence, axis=one_axis(axis, rank))


def optional(value: Any = None, *, type: Any = None) -> Any:
    """An optional of the value, or an empty one of the static `type`. ONNX Optional."""
    return value


def optional_get_element(value: Any) -> Any:
    """The value held. ONNX OptionalGetElement. Raises ValueError on an empty optional."""
    if value is None:
        raise ValueError("OptionalGetElement got an empty optional.")
    return value


def optional_has_element(value: Any = None) -> Array:
    """Whether a value is held, a bool scalar. ONNX OptionalHasElement."""
    return np.array(value is not None, bool)
