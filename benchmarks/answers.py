# SPDX-License-Identifier: Apache-2.0
"""What the zoo's pretrained models say, in human terms."""

import json

import numpy as np

from benchmarks import zoo


def text(probabilities: np.ndarray) -> tuple[str, float]:
    """The text and its mean confidence from ppocr_rec's output, 1 × steps × characters.

    Greedy CTC decoding (Graves et al. 2006): the best class of each step, repeats taken once, class 0 being the blank.
    The alphabet is in the model's metadata, one character a line; the last class is the space.
    """
    model = zoo.weightless("ppocr_rec")
    alphabet = next(entry.value for entry in model.metadata_props if entry.key == "character").splitlines()
    classes = ["", *alphabet, " "]
    best, scores = probabilities[0].argmax(-1), probabilities[0].max(-1)
    kept = [step for step, one in enumerate(best) if one and (step == 0 or one != best[step - 1])]
    return "".join(classes[best[step]] for step in kept), float(np.mean(scores[kept])) if kept else 0.0


def upside_down(probabilities: np.ndarray) -> tuple[bool, float]:
    """Whether ppocr_cls takes the line (1 × 2) for one turned by 180°, and how surely."""
    best = int(probabilities[0].argmax())
    return best == 1, float(probabilities[0, best])


def file_type(probabilities: np.ndarray) -> tuple[str, float]:
    """magika's label for a file (1 × labels), and its score."""
    labels = json.loads((zoo.model("magika").file().parent / "config.min.json").read_text())["target_labels_space"]
    best = int(probabilities[0].argmax())
    return labels[best], float(probabilities[0, best])


def lines_found(mask: np.ndarray, threshold: float = 0.3) -> list[tuple[int, int, int, int]]:
    """Boxes of text from ppocr_det's output (1 × 1 × height × width): (top, bottom, left, right), top to bottom.

    A box is a run of rows that hold text, and in it the columns that do: enough for text set in separate lines.
    """
    written = mask[0, 0] > threshold
    rows = np.flatnonzero(np.diff(np.concatenate([[0], written.any(1).astype(np.int8), [0]])))
    boxes = []
    for top, bottom in rows.reshape(-1, 2):
        columns = np.flatnonzero(written[top:bottom].any(0))
        if bottom - top >= 4:
            boxes.append((int(top), int(bottom), int(columns[0]), int(columns[-1]) + 1))
    return boxes
