"""Retrieval metrics, bootstraps and conclusions against values worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.conclusion import conclude
from evaluation.metrics import query_metrics, ranked_doc_ids, reciprocal_rank, summarise
from evaluation.significance import bootstrap_difference, bootstrap_mean, win_rate
from evaluation.texts import load_texts
from evaluation.training_log import read_training_log, reward_change, series
from reward.records.files import BadInput
from reward.records.sample import Hit


def docs(*ids: str | None) -> list[Hit]:
    return [Hit(content="", doc_id=doc_id) for doc_id in ids]


def test_metrics_of_one_relevant_document() -> None:
    twelfth = [f"n{i}" for i in range(11)] + ["x"]
    metrics = query_metrics(
        {"first": ["x", "y"], "third": ["a", "b", "x"], "twelfth": twelfth, "nothing": []},
        {query: ["x"] for query in ("first", "third", "twelfth", "nothing")},
    )
    assert metrics["first"] == {"success@1": 1, "recall@1": 1, "recall@5": 1, "recall@10": 1, "mrr@10": 1, "ndcg@10": 1}
    assert metrics["third"]["recall@1"] == 0
    assert metrics["third"]["recall@5"] == 1
    assert metrics["third"]["mrr@10"] == pytest.approx(1 / 3)
    assert metrics["third"]["ndcg@10"] == pytest.approx(1 / math.log2(4))
    assert set(metrics["twelfth"].values()) == {0.0}
    assert set(metrics["nothing"].values()) == {0.0}


def test_metrics_of_several_relevant_documents() -> None:
    metrics = query_metrics({"q": ["x", "n", "y"]}, {"q": ["x", "y", "z"]})["q"]
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert metrics["recall@1"] == pytest.approx(1 / 3)
    assert metrics["recall@5"] == pytest.approx(2 / 3)
    assert metrics["mrr@10"] == 1
    assert metrics["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / ideal)


def test_repeated_and_nameless_hits_keep_their_positions() -> None:
    ranking = ranked_doc_ids(docs("a", "a", None, "x"))
    assert len(ranking) == len(set(ranking)) == 4
    assert (ranking[0], ranking[3]) == ("a", "x")
    assert query_metrics({"q": ranking}, {"q": ["x"]})["q"]["mrr@10"] == pytest.approx(1 / 4)


NAMES = st.sampled_from([None, "a", "b", "a b", "", "\0", "\0hit 1", "a\0b", "a\0c", "é中😀", "\u202eb", "1", "0"])
QUERIES = st.sampled_from(["q", "q\0a", "q\0b", "", "q 1", "\t"])
RUNS = st.dictionaries(QUERIES, st.tuples(st.lists(NAMES, max_size=14), st.lists(NAMES.filter(bool), min_size=1)))


@given(RUNS)
@settings(max_examples=60, deadline=None)
def test_metrics_of_any_names_are_those_of_the_formulas(run: dict[str, tuple[list, list]]) -> None:
    """Hits without an id, passages of one document, and names that C would cut off, each at its position."""
    rankings = {query: ranked_doc_ids(docs(*names)) for query, (names, _) in run.items()}
    metrics = query_metrics(rankings, {query: relevant for query, (_, relevant) in run.items()})
    for query, (_, relevant) in run.items():
        hits = [doc in relevant for doc in rankings[query]]
        first = next((place for place, hit in enumerate(hits[:10], start=1) if hit), None)
        gain = sum(1 / math.log2(place + 1) for place, hit in enumerate(hits[:10], start=1) if hit)
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(10, len(set(relevant))) + 1))
        expected = {f"recall@{k}": sum(hits[:k]) / len(set(relevant)) for k in (1, 5, 10)}
        expected |= {"success@1": float(any(hits[:1])), "mrr@10": reciprocal_rank(first), "ndcg@10": gain / ideal}
        assert metrics[query] == pytest.approx(expected, abs=1e-6)


def test_bootstrap_of_a_mean() -> None:
    assert bootstrap_mean([0.3] * 20) == pytest.approx((0.3, 0.3))
    coin = np.tile([0.0, 1.0], 200)
    low, high = bootstrap_mean(coin, seed=1)
    # The normal approximation: 0.5 +- 1.96 * 0.5 / sqrt(400).
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.006)
    assert bootstrap_mean(coin, seed=1) == (low, high)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])


def test_bootstrap_of_a_difference_is_paired() -> None:
    spread = np.linspace(0, 1, 50)
    difference, interval = bootstrap_difference(spread + 0.1, spread)
    assert difference == pytest.approx(0.1)
    assert interval == pytest.approx((0.1, 0.1))
    with pytest.raises(ValueError, match="shapes"):
        bootstrap_difference([1.0], [1.0, 2.0])


def test_win_rate_counts_decided_pairs() -> None:
    ranks_a, ranks_b = [1, 1, 3, None, None, 2], [2, 1, 1, None, 5, None]
    result = win_rate([reciprocal_rank(r) for r in ranks_a], [reciprocal_rank(r) for r in ranks_b])
    assert (result.win, result.tie, result.loss, result.rate) == (2, 2, 2, 0.5)
    assert result.interval is not None and result.interval.low < 0.5 < result.interval.high
    assert result.sign_p == 1.0


def test_win_rate_without_a_decided_pair() -> None:
    assert win_rate([1.0, 0.5], [1.0, 0.5]) == (0, 2, 0, None, None, 1.0)


def test_win_rate_interval_by_normal_approximation() -> None:
    # 300 decided of 400: rate 0.6 +- 1.96 * sqrt(0.6 * 0.4 / 300).
    a, b = [1.0] * 180 + [0.0] * 120 + [0.5] * 100, [0.0] * 180 + [1.0] * 120 + [0.5] * 100
    result = win_rate(a, b, seed=2)
    assert result.rate == pytest.approx(0.6)
    assert result.interval == pytest.approx((0.5446, 0.6554), abs=0.006)
    # Exact: 2 * P(X >= 180), X ~ Bin(300, 1/2).
    tail = sum(math.comb(300, k) for k in range(180, 301)) / 2**300
    assert result.sign_p == pytest.approx(2 * tail)


def test_summary_has_metrics_count_and_intervals() -> None:
    summary = summarise([{"mrr@10": 1.0}, {"mrr@10": 0.0}, {"mrr@10": 0.5}])
    assert (summary["mrr@10"], summary["n"]) == (0.5, 3)
    low, high = summary["ci95"]["mrr@10"]
    assert 0 <= low < 0.5 < high <= 1


def conclusion_of(win: int, tie: int, loss: int, change: float = 0.1, spread: float = 0.05):
    a = [1.0] * win + [0.5] * tie + [0.0] * loss
    b = [0.0] * win + [0.5] * tie + [1.0] * loss
    result = win_rate(a, b)
    return conclude(
        "the policy",
        "the baseline",
        {
            "win": win,
            "tie": tie,
            "loss": loss,
            "rate": result.rate,
            "ci95": result.interval,
            "sign_p": result.sign_p,
            "difference": {"mrr@10": change, "ci95": [change - spread, change + spread]},
        },
        load_texts("report", "en"),
    )


@pytest.mark.parametrize(
    ("counts", "change", "outcome", "words"),
    [
        ((80, 100, 20), 0.1, "win", "The policy beats the baseline"),
        ((20, 100, 80), -0.1, "loss", "does not beat the baseline, it is worse"),
        ((50, 100, 50), 0.0, "undecided", "No clear difference"),
        ((52, 100, 48), 0.1, "undecided", "the interval includes 50"),
        # All five decided queries won: the bootstrap interval is [1, 1], yet chance does that once in 16 times.
        ((5, 100, 0), 0.1, "undecided", "too few queries decide"),
        ((0, 30, 0), 0.0, "undecided", "equally well on every one of the 30"),
        ((80, 100, 20), -0.1, "mixed", "wins more often than the baseline but loses more"),
        ((20, 100, 80), 0.1, "mixed", "loses to the baseline more often but gains more"),
    ],
)
def test_conclusion_is_honest(counts, change: float, outcome: str, words: str) -> None:
    conclusion = conclusion_of(*counts, change=change)
    assert conclusion.outcome == outcome
    assert words in conclusion.sentence.replace("\u00a0", " ")
    assert ("beats" in conclusion.sentence) == (outcome == "win")


def test_training_log_takes_the_later_line_of_a_step(tmp_path) -> None:
    log = tmp_path / "reward_metrics.jsonl"
    lines = [{"step": s, "avg_reward": s / 100} for s in range(1, 21)]
    lines += [{"step": 20, "avg_reward": 1.0, "8b_win_rate": 0.6}, {"step": 21}]
    log.write_text("\n".join(json.dumps(line) for line in lines))
    steps = read_training_log(log)
    assert [line["step"] for line in steps] == list(range(1, 22))
    assert reward_change(steps) == {"first": pytest.approx(0.015), "last": pytest.approx((0.19 + 1.0) / 2), "steps": 21}
    assert series(steps, "8b_win_rate") == ([20], [0.6])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no step"),
        ('{"step": 1}\n{"avg_reward": 0.5}', "row 2: step: expected an integer"),
        ("x", "row 1: not JSON"),
    ],
)
def test_training_log_bad_lines(tmp_path, text: str, message: str) -> None:
    log = tmp_path / "reward_metrics.jsonl"
    log.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_training_log(log)
