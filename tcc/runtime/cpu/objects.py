# SPDX-License-Identifier: Apache-2.0
"""Native objects in memory: linked with each other and with this process, their functions by address."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

import llvmlite.binding as llvm

from tcc.errors import FailureError

_lock = threading.Lock()
_numbers = itertools.count()


class ObjectLibrary:
    """Objects linked as one library; the code stays in memory as long as this object does."""

    def __init__(self, objects: Sequence[bytes | memoryview], exports: Sequence[str], name: str) -> None:
        """Link `objects` and look up `exports`; raises FailureError, naming the engine `name`, where a symbol is
        missing.
        """
        builder = llvm.JITLibraryBuilder()
        for content in objects:
            builder.add_object_img(content)
        builder.add_current_process()
        for symbol in exports:
            builder.export_symbol(symbol)
        with _lock:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            self._jit = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
            try:
                self._library = builder.link(self._jit, f"engine{next(_numbers)}")
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise FailureError(f"the native code of the engine {name} cannot be linked here: {reason}") from None

    def address(self, symbol: str) -> int:
        """The address of one of the exports."""
        return self._library[symbol]
