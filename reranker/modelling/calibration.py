"""Scores that mean the same in every version: the probability that a retrieved passage answers the query. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression


@dataclass(frozen=True)
class Platt:
    """Probability = sigmoid(slope · logit + intercept), as Platt (1999) fits it."""

    slope: float
    intercept: float

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(expit(self.slope * values + self.intercept))


def fit_platt(values: NDArray[np.float64], relevant: NDArray[np.bool_]) -> Platt:
    """Fit slope and intercept to logits and labels by maximum likelihood, hardly regularised. The logits are brought to
    unit spread first, so that the regularisation does not depend on the model's scale."""
    centre, spread = float(values.mean()), float(values.std()) or 1.0
    model = LogisticRegression(C=1e3, max_iter=1000)
    model.fit(((values - centre) / spread)[:, None], relevant)
    slope = float(model.coef_[0, 0]) / spread
    return Platt(slope, float(model.intercept_[0]) - slope * centre)


def calibration_error(shares: NDArray[np.float64], relevant: NDArray[np.bool_], bins: int = 10) -> float:
    """Return the expected calibration error in [0, 1] (Naeini et al. 2015): the mean gap between predicted and true
    share over `bins` equal intervals, weighted by their counts."""
    place = np.minimum((shares * bins).astype(int), bins - 1)
    gaps = [
        abs(float(shares[place == one].mean()) - float(relevant[place == one].mean())) * float((place == one).mean())
        for one in range(bins)
        if (place == one).any()
    ]
    return sum(gaps)
