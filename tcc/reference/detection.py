# SPDX-License-Identifier: Apache-2.0
"""Box selection: NonMaxSuppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.reference._numeric import Array, ieee, scalar

_BLOCK = 128
"""Boxes that are compared with each other at once."""


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
    parts = [np.zeros((0, 3), np.int64)]
    for n in range(scores.shape[0] if limit > 0 else 0):
        sides = np.stack(_corners(boxes[n], center_point_box))
        enough = None if score_threshold is None else scores[n] >= scalar(score_threshold)
        classes = range(scores.shape[1]) if enough is None else np.flatnonzero(enough.any(axis=1)).tolist()
        for c in classes:
            chosen = np.arange(scores.shape[2]) if enough is None else np.flatnonzero(enough[c])
            order = chosen[np.argsort(-scores[n, c, chosen], kind="stable")]
            kept = order[_kept(sides[:, order], overlap, limit)]
            parts.append(np.stack([np.full(kept.size, n), np.full(kept.size, c), kept], axis=1))
    return np.concatenate(parts)


def _kept(sides: Array, overlap: float, limit: int) -> list[int]:
    """Which of the boxes with these sides [y1 x1 y2 x2, s], best first, stay: `limit` at most.

    They are looked at a block at a time: first beside what is kept already, then among themselves.
    """
    kept: list[int] = []
    for start in range(0, sides.shape[1], _BLOCK):
        block = np.arange(start, min(start + _BLOCK, sides.shape[1]))
        for first in range(0, len(kept), _BLOCK):
            before = _covers(sides[:, kept[first : first + _BLOCK]], sides[:, block], overlap)
            block = block[~before.any(axis=0)]
        among = sides[:, block]
        covers = _covers(among, among, overlap)
        gone = np.zeros(block.size, bool)
        for i, box in enumerate(block.tolist()):
            if not gone[i]:
                kept.append(box)
                if len(kept) == limit:
                    return kept
                gone |= covers[i]
    return kept


def _covers(some: Array, others: Array, overlap: float) -> Array:
    """[a, b] from sides [4, a] and [4, b]: whether the intersection is more than `overlap` of the union."""
    y1, x1, y2, x2 = some[:, :, None]
    v1, u1, v2, u2 = others[:, None, :]
    shared = np.maximum(np.minimum(y2, v2) - np.maximum(y1, v1), 0)
    shared *= np.maximum(np.minimum(x2, u2) - np.maximum(x1, u1), 0)
    union = (y2 - y1) * (x2 - x1) + (v2 - v1) * (u2 - u1) - shared
    return (union > 0) & (shared > overlap * union)
