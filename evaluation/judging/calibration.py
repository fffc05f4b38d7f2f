"""The judge's win rate, corrected by what people say of pairs that the judge was asked about too. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, NamedTuple

from reward.judge.agreement import CanaryCheck, JudgedPair, summarise

Z = 1.959963984540054  # of a 95 % interval


class Corrected(NamedTuple):
    """The corrected rate and its 95 % interval."""

    rate: float
    low: float
    high: float


class Calibration(NamedTuple):
    """How a judge decides pairs that people have decided.

    Args:
        said_a, people_a: pairs of which people prefer A, and on how many of them the judge says so too.
        said_b, people_b: the same of B.
        check: agreement and kappa over all labelled pairs, ties included; `failed` ones were not judged.
    """

    said_a: int
    people_a: int
    said_b: int
    people_b: int
    check: CanaryCheck

    @property
    def labels(self) -> int:
        return self.people_a + self.people_b

    @property
    def problem(self) -> str | None:
        """Say why no win rate can be corrected, None where one can."""
        if not self.people_a or not self.people_b:
            return "needs labelled pairs of both outcomes (a and b) that the judge decides"
        if self.sensitivity + self.specificity <= 1:
            return (
                f"the judge decides no better than chance: sensitivity {self.sensitivity:.2f} and specificity "
                f"{self.specificity:.2f} sum to 1 or less"
            )
        return None

    @property
    def sensitivity(self) -> float:
        return self.said_a / self.people_a

    @property
    def specificity(self) -> float:
        return self.said_b / self.people_b


def calibrate(judge: str, pairs: Sequence[JudgedPair]) -> Calibration:
    """Count how the judge decides labelled pairs. Pairs that people or the judge call a tie decide nothing."""
    decided = [(pair.preferred, pair.judged) for pair in pairs if "tie" not in (pair.preferred, pair.judged)]
    decided = [(people, said) for people, said in decided if said is not None]
    a = [said == "a" for people, said in decided if people == "a"]
    b = [said == "b" for people, said in decided if people == "b"]
    return Calibration(sum(a), len(a), sum(b), len(b), summarise(judge, "pairwise", 0, pairs))


def correct(wins: int, decided: int, calibration: Calibration) -> Corrected:
    """Correct a win rate for the judge's errors (Rogan and Gladen 1978), with an interval that holds the uncertainty of
    the test and of the calibration (Lang and Reiczigel 2014; for judges: Lee et al. 2025, arXiv 2511.21140).

        rate = (p + q0 - 1) / (q0 + q1 - 1)     p the judge's rate, q1 its sensitivity, q0 its specificity

    The interval adds z² pseudo-observations to the test and two to each side of the calibration, then moves its centre;
    rate and interval are clipped to [0, 1].

    Raises:
        ValueError: nothing is decided, or the judge decides no better than chance (`Calibration.problem`).
    """
    if decided < 1 or calibration.problem:
        raise ValueError(calibration.problem or "no pair is decided")
    rate = (wins / decided + calibration.specificity - 1) / (calibration.specificity + calibration.sensitivity - 1)
    # The adjusted shares and sizes.
    n, n1, n0 = decided + Z**2, calibration.people_a + 2, calibration.people_b + 2
    p = (wins + Z**2 / 2) / n
    q1, q0 = (calibration.said_a + 1) / n1, (calibration.said_b + 1) / n0
    power = q0 + q1 - 1
    if power <= 0:
        return Corrected(_clip(rate), 0.0, 1.0)  # the few labels tell nothing for sure
    centre = (p + q0 - 1) / power
    spread1, spread0 = q1 * (1 - q1) / n1, q0 * (1 - q0) / n0
    shift = 2 * Z**2 * (centre * spread1 - (1 - centre) * spread0)
    width = Z * sqrt(p * (1 - p) / n + centre**2 * spread1 + (1 - centre) ** 2 * spread0) / power
    return Corrected(_clip(rate), _clip(centre + shift - width), _clip(centre + shift + width))


def as_metrics(wins: int, decided: int, calibration: Calibration) -> dict[str, Any] | None:
    """Return `corrected` of a win rate as `metrics.json` holds it, None where it cannot be corrected."""
    if calibration.problem or not decided:
        return None
    corrected = correct(wins, decided, calibration)
    return {
        "rate": corrected.rate,
        "ci95": [corrected.low, corrected.high],
        "sensitivity": calibration.sensitivity,
        "specificity": calibration.specificity,
        "n_labels": calibration.labels,
    }


def _clip(share: float) -> float:
    return min(1.0, max(0.0, share))
