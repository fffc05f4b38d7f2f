"""Intervals and corrections against other implementations, simulated truth and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, false_discovery_control

from evaluation.comparison import compare_answers
from evaluation.efficiency import latency
from evaluation.harm import harmed, pass_through
from evaluation.judging.calibration import Calibration, calibrate, correct
from evaluation.retrieval import Found
from evaluation.significance import bootstrap_difference, bootstrap_mean, holm, share_interval
from evaluation.slices import slice_members
from evaluation.targets import compare_with_targets
from reward.judge.agreement import CanaryCheck, JudgedPair
from reward.records.sample import Context
from reward.settings.targets import TargetSettings
from tests.support.rank_service import sample

CHECK = CanaryCheck(judge="j", mode="pairwise", step=0, judged=0, failed=0)


@pytest.mark.parametrize("shape", ["coin", "ranks", "skewed"])
def test_bootstrap_against_scipy(shape: str) -> None:
    """Two percentile bootstraps of 10 000 resamples differ by their own noise: a few per cent of the width, or by the
    step of one query where means are few."""
    rng = np.random.default_rng(7)
    values = {
        "coin": rng.integers(0, 2, 60).astype(float),
        "ranks": 1 / rng.integers(1, 12, 200),
        "skewed": rng.exponential(size=80),
    }[shape]
    other = rng.permutation(values)
    theirs = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1))
    paired = bootstrap(
        (values - other,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    )
    for ours, expected in (
        (bootstrap_mean(values, seed=3), theirs.confidence_interval),
        (bootstrap_difference(values, other, seed=3)[1], paired.confidence_interval),
    ):
        step = 1 / len(values) if shape == "coin" else 0.0
        allowed = max(0.05 * (expected.high - expected.low), step) + 1e-9
        assert abs(ours.low - expected.low) <= allowed
        assert abs(ours.high - expected.high) <= allowed


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.02]) == [0.02]
    # Never below what the false discovery rate allows, never below the p-value itself.
    p = np.random.default_rng(0).uniform(size=12) ** 3
    adjusted = holm(list(p))
    assert (np.array(adjusted) >= false_discovery_control(p) - 1e-12).all() and sorted(adjusted) == [
        adjusted[i] for i in np.argsort(p)
    ]


def test_share_interval_has_a_width_at_the_ends() -> None:
    low, high = share_interval(0, 50)
    assert low == 0 and 0.05 < high < 0.08
    assert share_interval(50, 50) == pytest.approx((1 - high, 1.0))


@pytest.mark.parametrize("truth", [0.1, 0.5, 0.62, 0.95])
@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.9, 0.85), (0.75, 0.7), (0.95, 0.6)])
@pytest.mark.parametrize("labels", [20, 100])
def test_corrected_win_rates_hold_the_truth(truth: float, sensitivity: float, specificity: float, labels: int) -> None:
    """In 1500 simulated evaluations the 95 % interval holds the true rate at least 93.5 % of the time (two standard
    errors of the simulation below 95 % are 93.9 %), where the raw rate's own interval misses it."""
    rng = np.random.default_rng(11)
    runs, n = 1500, 200
    wins = rng.binomial(n, truth * sensitivity + (1 - truth) * (1 - specificity), runs)
    said_a, said_b = rng.binomial(labels, sensitivity, runs), rng.binomial(labels, specificity, runs)
    held, errors, usable = 0, [], 0
    for won, a, b in zip(wins.tolist(), said_a.tolist(), said_b.tolist(), strict=True):
        calibration = Calibration(a, labels, b, labels, CHECK)
        if calibration.problem:
            continue
        usable += 1
        corrected = correct(won, n, calibration)
        assert 0 <= corrected.low <= corrected.high <= 1
        held += corrected.low <= truth <= corrected.high
        errors.append(corrected.rate - truth)
    assert usable > 0.98 * runs
    assert held / usable >= 0.935
    assert abs(np.median(errors)) < 0.03


def test_correction_moves_the_rate_where_the_raw_one_is_wrong() -> None:
    """A judge that calls 15 of 100 losers winners makes 50 % of wins look like 52.5 %."""
    corrected = correct(525, 1000, Calibration(900, 1000, 850, 1000, CHECK))
    assert corrected.rate == pytest.approx(0.5)
    assert corrected.low < 0.5 < corrected.high
    perfect = correct(60, 100, Calibration(500, 500, 500, 500, CHECK))
    assert perfect.rate == pytest.approx(0.6)
    # Beyond what errors alone would give, the rate is clipped.
    assert correct(100, 100, Calibration(80, 100, 80, 100, CHECK)).rate == 1.0
    assert correct(0, 100, Calibration(80, 100, 80, 100, CHECK)).rate == 0.0


@pytest.mark.parametrize(
    ("counts", "problem"),
    [((5, 10, 5, 10), "no better than chance"), ((2, 10, 3, 10), "chance"), ((5, 5, 0, 0), "both outcomes")],
)
def test_no_correction_without_ground(counts: tuple[int, int, int, int], problem: str) -> None:
    calibration = Calibration(*counts, CHECK)
    assert problem in (calibration.problem or "")
    with pytest.raises(ValueError, match=problem):
        correct(5, 10, calibration)


def test_calibration_counts_decided_pairs_alone() -> None:
    def pair(number: int, people: str, judge: str | None) -> JudgedPair:
        return JudgedPair(pair_id=str(number), preferred=people, judged=judge)

    said = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "tie"), ("tie", "a"), ("a", None)]
    calibration = calibrate("j", [pair(i, *one) for i, one in enumerate(said)])
    assert (calibration.said_a, calibration.people_a, calibration.said_b, calibration.people_b) == (1, 2, 1, 1)
    assert (calibration.check.judged, calibration.check.failed) == (5, 1)


def test_harm_and_pass_through() -> None:
    ids = ["a", "b", "c", "d"]
    found = harmed(ids, [1.0, 0.5, 0.2, 0.0], [1.0, 1.0, 0.1, 1.0])
    assert (found["share"], found["sample_ids"], found["n"]) == (0.5, ["d", "b"], 4)
    assert found["ci95"][0] < 0.5 < found["ci95"][1]
    after, before = ([{"mrr@10": value} for value in values] for values in ([1.0, 0.5, 0.2], [1.0, 1.0, 0.1]))
    kept = pass_through("mrr@10", after, before, {"gates": [False, False, True]})
    assert (kept["share_kept"], kept["mrr@10"]) == (1 / 3, pytest.approx(2.2 / 3))
    assert kept["rules"]["gates"]["mrr@10"] == pytest.approx(1.6 / 3)


def test_rules_of_pass_through_need_what_a_service_has() -> None:
    """With one reranker's scores the better list can be told; fused scores of two queries cannot be compared."""

    def found(rank: int, top1: float, origin: str) -> Found:
        return Found((*(f"n{i}" for i in range(rank - 1)), "p1"), rank, top1, origin, origin)

    samples = [sample(i, "b") for i in range(2)]
    for origin, rules in (("reranker", {"gates", "higher_score"}), ("fused", {"gates"})):
        answers = {
            "original": [found(1, 0.9, origin), found(3, 0.2, origin)],
            "rl": [found(2, 0.5, origin), found(1, 0.8, origin)],
        }
        metrics = compare_answers(samples, answers, by_rank=True, seed=0, gated={"rl": [None, "empty"]})
        assert metrics["pass_through"]["rl"]["rules"].keys() == rules
    assert metrics["harmed"]["rl"]["sample_ids"] == ["t_000"]
    assert metrics["pass_through"]["rl"]["mrr@10"] == 1.0


def test_slices_that_every_sample_tells() -> None:
    plain = sample(0, "b", query="钙片怎么吃", slices=("safety", "vitamins"))
    long = sample(1, "b", query="我妈妈今年七十岁有高血压还能不能吃你们家的鱼油")
    talk = long.model_copy(update={"context": Context(history_summary="问过鱼油")})
    members = slice_members([plain, long, talk])
    assert members == {
        "safety": [0],
        "vitamins": [0],
        "query_long": [1, 2],
        "query_short": [0],
        "with_history": [2],
        "with_profile": [0, 1],
        "without_history": [0, 1],
        "without_profile": [2],
    }
    assert slice_members([plain]) == {"safety": [0], "vitamins": [0]}
    words = sample(2, "b", query="how long does this keep once it has been opened at home")
    assert "query_long" in slice_members([words, plain], "en")


def test_slices_have_win_rates_and_holm_counts_the_pairs() -> None:
    samples = [sample(i, "b", slices=("even",) if i % 2 == 0 else ()) for i in range(20)]

    def found(rank: int) -> Found:
        return Found((*(f"n{i}" for i in range(rank - 1)), "p1"), rank, 1 / rank)

    answers = {
        "original": [found(3)] * 20,
        "baseline": [found(2)] * 20,
        "rl": [found(1 if i % 2 == 0 else 4) for i in range(20)],
    }
    metrics = compare_answers(samples, answers, by_rank=True, seed=0)
    assert metrics["slice_win_rate"]["even"]["rl_vs_baseline"]["win"] == 10
    assert metrics["win_rate"]["rl_vs_baseline"]["loss"] == 10
    p, adjusted = (metrics["win_rate"]["baseline_vs_original"][key] for key in ("sign_p", "sign_p_holm"))
    assert adjusted == pytest.approx(3 * p)


def test_latency_percentiles() -> None:
    assert latency([]) is None
    assert latency([0.1] * 95 + [1.1] * 5) == pytest.approx({"p50": 100, "p95": 150, "n": 100})


def test_targets_hold_models_to_their_stage() -> None:
    metrics = {
        "systems": {"baseline": {"success@1": 0.7}, "sft": {"success@1": 0.8}, "rl_40": {"success@1": 0.8}},
        "judge": {"systems": {"rl_40": {"overall": 4.5}}},
        "latency_ms": {"sft": {"p50": 400.0}},
        "cost_per_1000": {"sft": {"usd": 0.8}, "rl_40": None},
    }
    rows = compare_with_targets(TargetSettings(), ["sft", "rl_40"], metrics)
    met = {(row["metric"], row["system"]): row["met"] for row in rows}
    assert [row["system"] for row in rows[:3]] == ["baseline", "sft", "rl_40"]
    assert met["top1_accuracy", "sft"] is True and met["top1_accuracy", "rl_40"] is False
    assert met["judge_score", "rl_40"] is True and met["judge_score", "sft"] is None
    assert met["latency_ms", "sft"] is False and met["usd_per_1000", "sft"] is True
    assert met["top1_accuracy", "baseline"] is None
