# SPDX-License-Identifier: Apache-2.0
"""The graph dialect: tensors in SSA form, ONNX semantics made regular. Importing it registers every op.

Every module of this folder is imported; the op classes of those named below are also names here: `graph.Conv`.
"""

from __future__ import annotations

import importlib as _importlib
import pkgutil as _pkgutil

from tcc.ir.graph.activation import *  # noqa: F403
from tcc.ir.graph.attention import *  # noqa: F403
from tcc.ir.graph.base import *  # noqa: F403
from tcc.ir.graph.contraction import *  # noqa: F403
from tcc.ir.graph.control import *  # noqa: F403
from tcc.ir.graph.dims import *  # noqa: F403
from tcc.ir.graph.function import *  # noqa: F403
from tcc.ir.graph.movement import *  # noqa: F403
from tcc.ir.graph.normalization import *  # noqa: F403
from tcc.ir.graph.opaque import *  # noqa: F403
from tcc.ir.graph.pointwise import *  # noqa: F403
from tcc.ir.graph.pooling import *  # noqa: F403
from tcc.ir.graph.recurrent import *  # noqa: F403
from tcc.ir.graph.reduction import *  # noqa: F403
from tcc.ir.graph.region import *  # noqa: F403
from tcc.ir.graph.resize import *  # noqa: F403
from tcc.ir.graph.unary import *  # noqa: F403

for _module in _pkgutil.iter_modules(__path__):  # noqa: F405
    _importlib.import_module(f"{__name__}.{_module.name}")
