# SPDX-License-Identifier: Apache-2.0
"""An error in place of a value."""

from __future__ import annotations

from tcc.reference._numeric import Array


def refuse(condition: Array, *, message: str) -> Array:
    """What a compiler puts in place of a branch that cannot be computed. Raises ValueError, always."""
    raise ValueError(message)
