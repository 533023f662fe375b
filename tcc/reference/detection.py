# SPDX-License-Identifier: Apache-2.0
"""Box selection: NonMaxSuppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.reference._numeric import Array, ieee, scalar


def _corners(boxes: Array, center_point_box: int) -> tuple[Array, Array, Array, Array]:
    """The low and high corners of boxes [s, 4]: (y1, x1, y2, x2)."""
    a, b, c, d = np.moveaxis(boxes, -1, 0)
    if center_point_box:
        return b - d / 2, a - c / 2, b + d / 2, a + c / 2
    return np.minimum(a, c), np.minimum(b, d), np.maximum(a, c), np.maximum(b, d)


@ieee
def non_max_suppression(
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: Any = None,
    iou_threshold: Any = None,
    score_threshold: Any = None,
    *,
    center_point_box: int = 0,
) -> Array:
    """Boxes kept, best score first, as int64 rows (batch, class, box). ONNX NonMaxSuppression.

    boxes [n, s, 4] (y1, x1, y2, x2 of any two corners, or x, y, width, height with center_point_box), scores
    [n, classes, s]. A box goes if its score is below score_threshold or its intersection over union with a kept one is
    above iou_threshold (default 0); at most max_output_boxes_per_class are kept (default 0: none). Equal scores keep
    the lower index first.
    """
    limit = 0 if max_output_boxes_per_class is None else int(scalar(max_output_boxes_per_class))
    overlap = 0.0 if iou_threshold is None else float(scalar(iou_threshold))
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    rows: list[tuple[int, int, int]] = []
    for n in range(scores.shape[0] if limit > 0 else 0):
        y1, x1, y2, x2 = _corners(boxes[n], center_point_box)
        area = (y2 - y1) * (x2 - x1)
        for c in range(scores.shape[1]):
            order = np.argsort(-scores[n, c], kind="stable")
            if score_threshold is not None:
                order = order[scores[n, c][order] >= scalar(score_threshold)]
            kept = 0
            while order.size and kept < limit:
                best, order = order[0], order[1:]
                rows.append((n, c, int(best)))
                kept += 1
                height = np.minimum(y2[best], y2[order]) - np.maximum(y1[best], y1[order])
                width = np.minimum(x2[best], x2[order]) - np.maximum(x1[best], x1[order])
                shared = np.maximum(height, 0) * np.maximum(width, 0)
                union = area[best] + area[order] - shared
                order = order[~((union > 0) & (shared > overlap * union))]
    return np.array(rows, np.int64).reshape(-1, 3)
