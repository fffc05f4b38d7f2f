"""Losses over groups, and what they are for a model that tells nothing apart. Pure.

`scores` and `labels` are (groups, passages); a label is 1 for an answer, 0 for none, and -1 for padding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reranker.settings.run import LossName


def pair_mask(labels: Tensor) -> Tensor:
    """Return (groups, passages, passages): whether the first is an answer and the second is none."""
    return (labels == 1)[:, :, None] & (labels == 0)[:, None, :]


def margins(scores: Tensor) -> Tensor:
    """Return (groups, passages, passages): the first's score minus the second's."""
    return scores[:, :, None] - scores[:, None, :]


def group_loss(name: LossName, scores: Tensor, labels: Tensor, teacher: Tensor | None, margin: float) -> Tensor:
    """Return the batch's loss, the mean over all pairs of an answer and none (`bce`: over all passages).

    `margin`: max(0, margin - (positive - negative)). `ranknet`: log(1 + exp(-(positive - negative))) (Burges et al.
    2005). `margin_mse`: squared difference of positive - negative from the teacher's (Hofstätter et al. 2020).
    """
    if name == "bce":
        known = labels >= 0
        return functional.binary_cross_entropy_with_logits(scores[known], labels[known].to(scores.dtype))
    difference = margins(scores)[pair_mask(labels)]
    if name == "margin":
        return functional.relu(margin - difference).mean()
    if name == "ranknet":
        return functional.softplus(-difference).mean()
    if teacher is None:
        raise ValueError("margin_mse without a teacher's scores")
    return functional.mse_loss(difference, margins(teacher)[pair_mask(labels)].to(difference.dtype))


def cross_entropy_ratio(scores: Tensor, labels: Tensor) -> float:
    """Return the cross-entropy of "which passage answers" by softmax over each group, divided by its value for equal
    scores, which is ln(group size) with one answer (ln(group size / answers) with more): 1 is chance, 0 perfect."""
    hidden = scores.detach().float().masked_fill(labels < 0, float("-inf"))
    logs = hidden.log_softmax(dim=1).masked_fill(labels != 1, float("-inf")).logsumexp(dim=1)
    size, answers = (labels >= 0).sum(dim=1), (labels == 1).sum(dim=1)
    return float(-logs.mean() / (size / answers).log().mean())


def spread(scores: Tensor, labels: Tensor) -> float:
    """Return the mean over groups of the scores' standard deviation: 0 for one constant score."""
    known = labels >= 0
    return float(torch.stack([row[ok].float().std() for row, ok in zip(scores.detach(), known, strict=True)]).mean())
