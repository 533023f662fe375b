# SPDX-License-Identifier: Apache-2.0
"""tcc: an open ONNX inference compiler.

    engine = tcc.compile("model.onnx", target="native", opt_level=3, shapes={"x": (8, 3, 224, 224)})
    outputs = engine({"x": x})
    engine = tcc.load("model.tcc")
    outputs = tcc.backend.prepare(model).run([x])

Nothing heavy is imported before one of these is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcc.errors import FailureError, InputError, TccError

if TYPE_CHECKING:
    from tcc import backend
    from tcc.compiler.api import compile
    from tcc.runtime import load

__version__ = "0.1.0"
__all__ = ["FailureError", "InputError", "TccError", "__version__", "backend", "compile", "load"]

_LAZY = {"compile": ("tcc.compiler.api", "compile"), "load": ("tcc.runtime", "load")}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "backend":
        return importlib.import_module("tcc.backend")
    found = _LAZY.get(name)
    if found is None:
        raise AttributeError(f"module 'tcc' has no attribute {name!r}")
    value = getattr(importlib.import_module(found[0]), found[1])
    globals()[name] = value
    return value
