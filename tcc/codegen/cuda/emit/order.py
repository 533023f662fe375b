# SPDX-License-Identifier: Apache-2.0
"""In which order a template should walk over dims: neighbours in memory next to each other."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.cuda.emit.access import Access


def by_stride(access: Access, dims: Sequence[str]) -> tuple[str, ...]:
    """The dims from the largest stride to the smallest; those without one stay where they stand, ahead of the rest."""
    known = {d: access.stride(d) for d in dims}

    def key(item: tuple[int, str]) -> tuple[int, int]:
        step = known[item[1]]
        return (-(1 << 62) if step is None else -abs(step), item[0])

    return tuple(d for _, d in sorted(enumerate(dims), key=key))


def mergeable(accesses: Sequence[Access], outer: str, inner: str, extent: int) -> bool:
    """Whether walking over (outer, inner) is one walk with one stride in every access; `extent` is inner's."""
    for a in accesses:
        far, near = a.stride(outer), a.stride(inner)
        if far is None or near is None or far != near * extent:
            return False
    return True
