# SPDX-License-Identifier: Apache-2.0
"""The ONNX frontend: `import_onnx` reads a model into a module of the graph dialect.

`importer` walks graphs and functions, `node` is what a handler sees, `ops` holds the handlers by family, `builder`
emits ops and folds what shapes and small constants decide.
"""

from tcc.compiler.frontend.binding import free_dims, how_to_bind
from tcc.compiler.frontend.constants import read_constants
from tcc.compiler.frontend.importer import Imported, import_onnx, load_onnx
from tcc.compiler.frontend.model import read_model

__all__ = ["Imported", "free_dims", "how_to_bind", "import_onnx", "load_onnx", "read_constants", "read_model"]
