"""Scores of pairs, as the service computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward.records.files import BadInput

BATCH = 32


def logits(cross_encoder: Any, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    """Return the score of each pair before any activation.

    Raises:
        BadInput: a score is no number.
    """
    import torch

    if not pairs:
        return np.empty(0)
    found = cross_encoder.predict(
        list(pairs), batch_size=BATCH, activation_fn=torch.nn.Identity(), show_progress_bar=False
    )
    scores = np.asarray(found, np.float64).reshape(len(pairs))
    if not np.isfinite(scores).all():
        broken = int((~np.isfinite(scores)).sum())
        raise BadInput(
            f"{broken} of {len(scores)} scores are no numbers: the base is broken, or training diverged "
            "(training.learning_rate)"
        )
    return scores


def shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sigmoid: what the service shows and `score_threshold` is compared with."""
    from scipy.special import expit

    return np.asarray(expit(values))
