# SPDX-License-Identifier: Apache-2.0
"""The steps that graphs grow by: functions that add a few nodes to one value."""

from tests.random_graphs.steps import (  # noqa: F401  (each fills the table)
    contraction,
    control,
    dynamic,
    indexing,
    integers,
    movement,
    nets,
    normalization,
    pointwise,
    quantize,
    reduction,
    shapes,
    windows,
)
from tests.random_graphs.steps.table import STEPS, Entry

__all__ = ["STEPS", "Entry"]
