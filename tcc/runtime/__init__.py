# SPDX-License-Identifier: Apache-2.0
"""The runtime: reads engines and runs them, without the compiler.

``load(path)`` gives an `Engine`. Names are looked up on first use, to keep ``import tcc`` light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tcc.runtime.engine import BoundCall, Engine, TensorSpec, load

__all__ = ["BoundCall", "Engine", "TensorSpec", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tcc.runtime' has no attribute '{name}'")
    from tcc.runtime import engine

    return getattr(engine, name)
