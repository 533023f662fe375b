# SPDX-License-Identifier: Apache-2.0
"""onnx's backend interface on tcc: `prepare`, `run_model`, `run_node`, `supports_device`."""

from tcc.compiler.backend import (
    TccBackend,
    TccRep,
    is_compatible,
    prepare,
    run_model,
    run_node,
    supports_device,
)

__all__ = ["TccBackend", "TccRep", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]
