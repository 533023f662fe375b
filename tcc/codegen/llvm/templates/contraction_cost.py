# SPDX-License-Identifier: Apache-2.0
"""How long a contraction in register tiles takes, estimated."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.codegen.llvm.templates.contraction_plan import Plan
from tcc.codegen.template import Columns
from tcc.ir.targets import Target


def estimate(plan: Plan, c: Columns, target: Target) -> np.ndarray[Any, Any]:
    """Seconds for each config."""
    m, v = c["m_tile"].astype(float), c["n_tile"] / plan.lanes
    rows, columns, depth = plan.row_count, plan.columns, plan.depth_count
    tiles, panels = np.ceil(rows / m), np.ceil(columns / c["n_tile"])
    step = np.maximum(m * v / 2, (m + v) / 2)
    vectors = np.ceil(columns / plan.lanes)
    work = tiles * vectors / v * (step * depth + 40)
    tasks = plan.batch_count * c["m_parts"] * c["n_parts"]
    share = np.ceil(tasks / target.cores) / tasks
    return plan.batch_count * work * share / 3.8e9 + panels * 0 + np.where(c["copy"], 1e-5, 0) + tasks * 1e-8
