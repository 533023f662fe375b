# SPDX-License-Identifier: Apache-2.0
"""Loads the dialects, so that the parser and the op reference know every op."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil

DIALECTS = ("graph", "kernel", "arith", "math")
_loaded = False


def load_all() -> None:
    """Import the op declarations of every dialect (once a process): afterwards `tcc.ir.declare.OPS` is complete.

    A dialect is a module or package of `tcc.ir`; all modules of a package are imported.
    """
    global _loaded
    if _loaded:
        return
    importlib.import_module("tcc.ir.module")
    for name in DIALECTS:
        full = f"tcc.ir.{name}"
        if importlib.util.find_spec(full) is None:
            continue
        package = importlib.import_module(full)
        for found in pkgutil.walk_packages(getattr(package, "__path__", []), f"{full}."):
            importlib.import_module(found.name)
    _loaded = True
