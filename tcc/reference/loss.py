# SPDX-License-Identifier: Apache-2.0
"""Classification losses: negative log likelihood, softmax cross entropy."""

from __future__ import annotations

import numpy as np

from tcc.reference._numeric import Array, ieee, narrow, widen
from tcc.reference.softmax import log_softmax


def _nll(log_prob: Array, target: Array, weight: Array | None, ignore_index: int | None, reduction: str) -> Array:
    target = np.asarray(target).astype(np.int64)
    ignored = np.zeros(target.shape, bool) if ignore_index is None else target == ignore_index
    index = np.where(ignored, 0, target)
    picked = np.take_along_axis(log_prob, index[:, None], axis=1)[:, 0]
    weights = np.ones(target.shape, log_prob.dtype) if weight is None else widen(weight)[index]
    weights = np.where(ignored, np.zeros((), log_prob.dtype), weights)
    loss = np.where(ignored, np.zeros((), log_prob.dtype), -picked * weights)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return np.asarray(loss.sum())
    if reduction == "mean":
        return np.asarray(loss.sum() / weights.sum())
    raise ValueError(f"reduction '{reduction}' is none of none, sum, mean.")


@ieee
def negative_log_likelihood_loss(
    x: Array, target: Array, weight: Array | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Array:
    """-weight[t] x[n, t, ..] for target t [n, d..], x [n, c, d..]; the mean is over the weights applied.

    ONNX NegativeLogLikelihoodLoss. Targets equal to ignore_index weigh nothing.
    """
    return narrow(_nll(widen(x), target, weight, ignore_index, reduction), np.asarray(x).dtype)


@ieee
def softmax_cross_entropy_loss(
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    """The negative log likelihood of log_softmax(scores) over dim 1, and that log probability: (loss, log_prob).

    ONNX SoftmaxCrossEntropyLoss.
    """
    log_prob = log_softmax(widen(scores), axis=1)
    dtype = np.asarray(scores).dtype
    return narrow(_nll(log_prob, labels, weights, ignore_index, reduction), dtype), narrow(log_prob, dtype)
