# SPDX-License-Identifier: Apache-2.0
"""Operators that rightly launch no kernel, and why. A case with any other operator must launch one."""

from __future__ import annotations

_VIEW = "moves no element: the result is the operand's memory"
_SHAPE = "its result is known from shapes alone"
_SIZE = "is known once its size is, and that decides the shape"
_VALUE = "its result is in the model"
_HOST = "is a host op: "
_FLOW = "runs what is in it"
_TEXT = _HOST + "it works on strings"
_LIST = _HOST + "it works on a sequence or an optional, or is resolved while importing"
_DATA = _HOST + "the data decide the shape of its result"
_TRAINING = _HOST + "it is a step of training"

WITHOUT_KERNEL: dict[str, str] = {
    "Constant": _VALUE,
    "HannWindow": _SIZE, "HammingWindow": _SIZE, "BlackmanWindow": _SIZE,
    "Shape": _SHAPE, "Size": _SHAPE, "ConstantOfShape": _SHAPE, "EyeLike": _SHAPE,
    "BitCast": _VIEW, "Identity": _VIEW, "Reshape": _VIEW, "Flatten": _VIEW, "Squeeze": _VIEW, "Unsqueeze": _VIEW,
    "Dropout": _VIEW,
    "Slice": "is a view where the slice is contiguous", "Split": "is a view where the parts are contiguous",
    "Concat": "its operands are written in place, or copied as a whole", "Cast": "is a view where the type stays",
    "Transpose": "is a view where only dims of extent 1 move", "Expand": "is a view where nothing is repeated",
    "StringConcat": _TEXT, "StringNormalizer": _TEXT, "StringSplit": _TEXT, "RegexFullMatch": _TEXT,
    "LabelEncoder": _TEXT,
    "SequenceConstruct": _LIST, "SequenceEmpty": _LIST, "SequenceInsert": _LIST, "SequenceErase": _LIST,
    "SequenceAt": _LIST, "SequenceLength": _LIST, "SequenceMap": _LIST, "SplitToSequence": _LIST,
    "ConcatFromSequence": _LIST, "Optional": _LIST, "OptionalGetElement": _LIST, "OptionalHasElement": _LIST,
    "NonZero": _DATA, "Unique": _DATA, "Compress": _DATA, "NonMaxSuppression": _DATA,
    "ImageDecoder": _HOST + "it decodes a file format",
    "Adagrad": _TRAINING, "Adam": _TRAINING, "Momentum": _TRAINING, "Gradient": _TRAINING,
    "If": _FLOW, "Loop": _FLOW, "Scan": _FLOW,
}  # fmt: skip
