# SPDX-License-Identifier: Apache-2.0
"""Which operators are called on the host, as functions of `tcc.reference`, and why: the same list on every target."""

from __future__ import annotations

STRINGS = "strings: kernels compute with numbers"
SEQUENCE = "sequences: how many tensors they hold, and of what shapes, is known at run time only"
OPTIONAL = "optionals: whether they hold a value is known at run time only"
MAP = "maps: their keys and values are Python objects"
IMAGES = "image decoding: a file format, read by Pillow"
EXTENT = "data decide the shape of its result"
RANDOM = "numbers that differ from call to call, or a seed's that are too many to hold as a constant"
COMPUTED = "an operand that must be known to make its kernel is computed by the graph itself"

HOST_OPS: dict[str, tuple[tuple[str, ...], str]] = {
    "cast": (("Cast", "CastLike"), STRINGS),
    "compress": (("Compress",), EXTENT),
    "concat_from_sequence": (("ConcatFromSequence",), SEQUENCE),
    "image_decoder": (("ImageDecoder",), IMAGES),
    "label_encoder": (("LabelEncoder", "CategoryMapper", "OneHotEncoder"), STRINGS),
    "non_max_suppression": (("NonMaxSuppression",), EXTENT),
    "non_zero": (("NonZero",), EXTENT),
    "optional": (("Optional",), OPTIONAL),
    "optional_get_element": (("OptionalGetElement",), OPTIONAL),
    "optional_has_element": (("OptionalHasElement",), OPTIONAL),
    "random_normal": (("RandomNormal",), RANDOM),
    "random_normal_like": (("RandomNormalLike",), RANDOM),
    "random_uniform": (("RandomUniform", "Bernoulli", "Multinomial"), RANDOM),
    "random_uniform_like": (("RandomUniformLike",), RANDOM),
    "refuse": ((), "a branch that the shapes of the inputs do not allow: a call that takes it is an error"),
    "regex_full_match": (("RegexFullMatch",), STRINGS),
    "sequence_at": (("SequenceAt",), SEQUENCE),
    "sequence_construct": (("SequenceConstruct",), SEQUENCE),
    "sequence_empty": (("SequenceEmpty",), SEQUENCE),
    "sequence_erase": (("SequenceErase",), SEQUENCE),
    "sequence_insert": (("SequenceInsert",), SEQUENCE),
    "sequence_items": ((), "the tensors of an input that is a sequence of known length"),
    "sequence_length": (("SequenceLength",), SEQUENCE),
    "split_to_sequence": (("SplitToSequence",), SEQUENCE),
    "string_concat": (("StringConcat",), STRINGS),
    "string_normalizer": (("StringNormalizer",), STRINGS),
    "string_split": (("StringSplit",), STRINGS),
    "tf_idf_vectorizer": (("TfIdfVectorizer",), "strings; and rows of tokens as long as data decide"),
    "tokenizer": (("Tokenizer",), STRINGS),
    "unique": (("Unique",), EXTENT),
    "zip_map": (("ZipMap",), MAP),
}
"""Function of `tcc.reference` → the ONNX operators that call it, and the reason."""

STRING_MOVES: dict[str, str] = {
    "concat": "Concat", "equal": "Equal", "expand": "Expand", "gather": "Gather", "gather_elements": "GatherElements",
    "gather_nd": "GatherND", "reshape": "Reshape", "scatter_elements": "ScatterElements", "scatter_nd": "ScatterND",
    "slice": "Slice", "tile": "Tile", "transpose": "Transpose", "where": "Where",
}  # fmt: skip
"""Functions that are called for tensors of strings: what the ops of kernels do for numbers."""


def reason_of(function: str) -> str:
    """Why a function is called on the host."""
    if function in HOST_OPS:
        return HOST_OPS[function][1]
    return STRINGS if function in STRING_MOVES else COMPUTED
