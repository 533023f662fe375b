# SPDX-License-Identifier: Apache-2.0
"""The bars of check_models: what counts as the same decision, and the percentile."""

import numpy as np

from benchmarks.check_models import decision, percentile


def test_masks_are_compared_by_overlap():
    mask = np.zeros((1, 1, 20, 20), np.float32)
    mask[..., 5:15, 5:15] = 0.9
    off = mask.copy()
    off[..., 5, 5:8] = 0.0
    assert decision("ppocr_det_320x320", {"y": mask}, {"y": mask}) == (True, "IoU 1.0000")
    assert decision("ppocr_det_320x320", {"y": mask}, {"y": off}) == (False, "IoU 0.9700")
    assert decision("ppocr_det_320x320", {"y": mask}, {"y": mask * 0.5})[0]


def test_classes_are_compared_along_their_axis():
    rows = np.array([[[0.1, 0.9], [0.8, 0.2]]])
    assert decision("ppocr_rec", {"y": rows}, {"y": rows + 0.1}) == (True, "100.0% alike")
    assert decision("ppocr_rec", {"y": rows}, {"y": rows[..., ::-1]}) == (False, "0.0% alike")
    picture = rows.reshape(1, 4, 1, 1)
    assert decision("light_squeezenet", {"y": picture}, {"y": picture * 2})[0]
    assert not decision("light_squeezenet", {"y": picture}, {"y": -picture})[0]
    assert decision("bert_base", {"y": rows}, {"y": -rows}) == (True, "-")


def test_the_percentile_leaves_out_one_in_a_thousand():
    wanted = np.full(10_000, 2.0)
    got = wanted.copy()
    got[:5] += 1.0
    assert percentile({"y": wanted}, {"y": got}) == 0
    got[:20] += 1.0
    assert percentile({"y": wanted}, {"y": got}) == 0.5
