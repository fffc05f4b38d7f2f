"""benchmarks.promotion: it can miss its aim, and a better candidate is promoted."""

import numpy as np
import pytest

from benchmarks import promotion
from benchmarks.promotion import main, promoted

# Original, baseline, model: the two rewriters differ on every query.
RANKS = [np.array([[9, 1, 2], [5, 2, 3], [30, 4, 2], [0, 1, 3]])]


def test_equal_systems_are_seldom_promoted_and_better_ones_mostly():
    same = promoted(RANKS, simulations=200, queries=60, win_rate=0.5, seed=0)
    assert same["promoted"] <= same["win_rate_alone"] <= 0.025
    better = promoted(RANKS, simulations=4, queries=60, win_rate=0.95, seed=0)
    assert better["win_rate_alone"] == 1.0 and better["rejected"] == 0
    worse = promoted(RANKS, simulations=4, queries=60, win_rate=0.05, seed=0)
    assert worse["promoted"] == 0 and worse["rejected"] == 1.0


def test_it_says_when_the_aim_is_missed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    arguments = ["--simulations", "2", "--power-simulations", "1", "--queries", "60"]
    assert main(arguments) == 0 and "met" in capsys.readouterr().out
    monkeypatch.setattr(promotion, "AIM", -1.0)
    assert main(arguments) == 1 and "missed" in capsys.readouterr().out
