# SPDX-License-Identifier: Apache-2.0
"""String operators on object arrays of str, and the n-gram vectoriser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tcc.reference._numeric import Array


def _strings(values: list[Any], shape: tuple[int, ...]) -> Array:
    result = np.empty(len(values), object)
    result[:] = values
    return result.reshape(shape)


def string_concat(x: Array, y: Array) -> Array:
    """x followed by y, broadcast. ONNX StringConcat."""
    left, right = np.broadcast_arrays(np.asarray(x, object), np.asarray(y, object))
    joined = [a + b for a, b in zip(left.reshape(-1), right.reshape(-1), strict=True)]
    return _strings(joined, left.shape)


def string_split(x: Array, *, delimiter: str = "", maxsplit: int | None = None) -> tuple[Array, Array]:
    """Each string's parts along a new last dim, padded with "", and their int64 counts. ONNX StringSplit.

    An empty delimiter splits on runs of whitespace and drops those at the ends.
    """
    x = np.asarray(x, object)
    parts = [s.split(delimiter or None, -1 if maxsplit is None else maxsplit) for s in x.reshape(-1)]
    width = max(map(len, parts), default=0)
    padded = [p + [""] * (width - len(p)) for p in parts]
    flat = _strings([s for p in padded for s in p], (*x.shape, width))
    return flat, np.array([len(p) for p in parts], np.int64).reshape(x.shape)


def tokenizer(
    x: Array,
    *,
    separators: Sequence[str] = (),
    tokenexp: str = "",
    mark: int = 0,
    mincharnum: int = 1,
    pad_value: str = "",
) -> Array:
    """Each string's tokens of at least `mincharnum` characters along a new last dim, padded with `pad_value`.

    Tokens are what the pattern `tokenexp` matches, or what lies between matches of the `separators`; one separator that
    is empty makes every character a token. `mark`: between U+0002 and U+0003. com.microsoft Tokenizer.
    """
    x = np.asarray(x, object)

    def cut(text: str) -> list[str]:
        if tokenexp:
            found = [m.group() for m in re.finditer(tokenexp, text)]
        elif list(separators) == [""]:
            found = list(text)
        else:
            found = [text]
            for separator in separators:
                found = [part for piece in found for part in _between(separator, piece)]
        return [token for token in found if len(token) >= max(mincharnum, 1)]

    parts = [cut(s) for s in x.reshape(-1)]
    width = max(map(len, parts), default=0)
    if width and mark:
        parts = [["\x02", *p, "\x03"] for p in parts]
        width += 2
    flat = [s for p in parts for s in (p + [pad_value] * (width - len(p)))[:width]]
    return _strings(flat, (*x.shape, width))


def _between(separator: str, text: str) -> list[str]:
    out: list[str] = []
    start = 0
    for m in re.finditer(separator, text):
        if m.end() > m.start():
            out.append(text[start : m.start()])
            start = m.end()
    return [*out, text[start:]]


def string_normalizer(
    x: Array,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str = "",
    stopwords: Sequence[str] = (),
) -> Array:
    """X [c] or [1, c] without its stop words, then lowered, uppered or as it is. ONNX StringNormalizer.

    If all go, one empty string stays. Case follows Unicode's own rules whatever the locale.
    """
    x = np.asarray(x, object)
    change = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
    if case_change_action not in change:
        raise ValueError(f"case_change_action '{case_change_action}' is none of NONE, LOWER, UPPER.")
    key = str if is_case_sensitive else str.casefold
    stop = {key(w) for w in stopwords}
    kept = [change[case_change_action](s) for s in x.reshape(-1) if key(s) not in stop] or [""]
    return _strings(kept, (*x.shape[:-1], len(kept)))


def regex_full_match(x: Array, *, pattern: str) -> Array:
    """Whether each whole string matches; RE2's syntax as far as Python's re shares it. ONNX RegexFullMatch."""
    x = np.asarray(x, object)
    compiled = re.compile(pattern)
    return np.array([compiled.fullmatch(s) is not None for s in x.reshape(-1)], bool).reshape(x.shape)


def tf_idf_vectorizer(
    x: Array,
    *,
    mode: str,
    min_gram_length: int,
    max_gram_length: int,
    max_skip_count: int,
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Array:
    """Counts of the pool's n-grams in X [c] or [n, c], float32 [.., max(ngram_indexes) + 1]. ONNX TfIdfVectorizer.

    TF counts, IDF is the weight where the count is not 0, TFIDF the product. Single tokens are counted once, whatever
    the skips. Raises ValueError on another mode.
    """
    if mode not in ("TF", "IDF", "TFIDF"):
        raise ValueError(f"mode '{mode}' is none of TF, IDF, TFIDF.")
    x = np.asarray(x)
    pool: list[Any] = list(pool_strings or ()) or [int(v) for v in pool_int64s or ()]
    grams: dict[tuple[Any, ...], int] = {}
    bounds = [*ngram_counts, len(pool)]
    for length, (start, end) in enumerate(pairwise(bounds), 1):
        for i in range(start, end, length):
            grams[tuple(pool[i : i + length])] = len(grams)
    rows = x.reshape(1, -1) if x.ndim < 2 else x
    result = np.zeros((rows.shape[0], max(ngram_indexes) + 1), np.float32)
    scale = np.ones(len(grams)) if weights is None else np.asarray(weights)
    for n, tokens in enumerate(rows.tolist()):
        counts = np.zeros(len(grams))
        for length in range(min_gram_length, max_gram_length + 1):
            for skip in range(max_skip_count + 1 if length > 1 else 1):
                reach = (length - 1) * (skip + 1)
                for start in range(len(tokens) - reach):
                    found = grams.get(tuple(tokens[start : start + reach + 1 : skip + 1]))
                    if found is not None:
                        counts[found] += 1
        values = {"TF": counts, "IDF": (counts > 0) * scale, "TFIDF": counts * scale}[mode]
        for i, v in enumerate(values):
            result[n, ngram_indexes[i]] += v
    return result.reshape(-1) if x.ndim < 2 else result
