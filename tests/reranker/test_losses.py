"""The four losses, chance, and what the watch says of a run that learns nothing."""

import json
import math

import numpy as np
import pytest
import torch

from reranker.data.records import Passage
from reranker.data.sampling import Group
from reranker.modelling.calibration import Platt, calibration_error, fit_platt
from reranker.training.batching import GroupCollator, scatter
from reranker.training.losses import cross_entropy_ratio, group_loss, spread
from reranker.training.outcome import Comparison, Outcome, compare
from reranker.training.validation import measure
from reranker.training.watching import WINDOW, Watch

SCORES = torch.tensor([[2.0, 0.5, 1.8], [0.0, 1.0, 9.0]])
LABELS = torch.tensor([[1, 0, 0], [1, 0, -1]])


def test_the_margin_loss_is_the_mean_shortfall_of_all_pairs():
    assert group_loss("margin", SCORES, LABELS, None, 1.0).item() == pytest.approx((0 + 0.8 + 2.0) / 3)


def test_ranknet_is_the_mean_logistic_loss_of_all_pairs():
    expected = np.mean([math.log1p(math.exp(-d)) for d in (1.5, 0.2, -1.0)])
    assert group_loss("ranknet", SCORES, LABELS, None, 1.0).item() == pytest.approx(expected)


def test_margin_mse_compares_margins_with_the_teachers():
    teacher = torch.tensor([[3.0, 1.0, 1.0], [5.0, 1.0, 0.0]])
    expected = ((1.5 - 2) ** 2 + (0.2 - 2) ** 2 + (-1 - 4) ** 2) / 3
    assert group_loss("margin_mse", SCORES, LABELS, teacher, 1.0).item() == pytest.approx(expected)


def test_bce_judges_each_passage_alone_and_no_padding():
    expected = np.mean(
        [math.log1p(math.exp(-s)) for s in (2.0, 0.0)] + [math.log1p(math.exp(s)) for s in (0.5, 1.8, 1.0)]
    )
    five = [math.log1p(math.exp(-s)) for s in (2.0, 0.0)] + [math.log1p(math.exp(s)) for s in (0.5, 1.8, 1.0)]
    assert len(five) == 5 and group_loss("bce", SCORES, LABELS, None, 1.0).item() == pytest.approx(np.mean(five))
    assert expected > 0


def test_two_answers_make_pairs_with_every_negative_and_none_with_each_other():
    scores, labels = torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([[1, 1, 0]])
    assert group_loss("margin", scores, labels, None, 1.0).item() == pytest.approx(0.5)


@pytest.mark.parametrize("loss", ["margin", "ranknet", "bce"])
def test_padding_changes_neither_loss_nor_gradient(loss):
    short = torch.tensor([[1.0, 0.2]], requires_grad=True)
    padded = torch.tensor([[1.0, 0.2, 77.0]], requires_grad=True)
    a = group_loss(loss, short, torch.tensor([[1, 0]]), None, 1.0)
    b = group_loss(loss, padded, torch.tensor([[1, 0, -1]]), None, 1.0)
    a.backward(), b.backward()
    assert a.item() == b.item()
    torch.testing.assert_close(torch.cat([short.grad, torch.zeros(1, 1)], 1), padded.grad)


@pytest.mark.parametrize("labels", [[[1, 0, 0, 0]], [[1, 1, 0, 0]], [[1, 0, 0, -1]], [[1, 0, -1, -1], [1, 0, 0, 0]]])
def test_equal_scores_are_at_chance_and_right_ones_far_below(labels):
    labels = torch.tensor(labels)
    assert cross_entropy_ratio(torch.full(labels.shape, 3.0), labels) == pytest.approx(1)
    assert cross_entropy_ratio(labels * 9.0, labels) < 0.1


def test_the_spread_is_zero_for_one_score_and_sees_no_padding():
    labels = torch.tensor([[1, 0, -1]])
    assert spread(torch.tensor([[2.0, 2.0, 9.0]]), labels) == 0 < spread(torch.tensor([[2.0, 1.0, 0.0]]), labels)


def test_a_chunks_scores_come_back_to_their_places():
    class Tokenizer:
        def preprocess(self, pairs):
            return [len(passage) for _, passage in pairs]

    groups = [
        Group("q", (Passage("a", "x"), Passage("b", "xxxx"), Passage("c", "xx")), 1),
        Group("q", (Passage("d", "x" * 7),), 1),
    ]
    batch = GroupCollator(Tokenizer(), 2)(groups)
    assert [max(chunk) - min(chunk) for chunk in batch["chunks"]] == [3, 1]
    scores = [torch.tensor(chunk, dtype=torch.float) for chunk in batch["chunks"]]
    found = scatter(scores, batch["places"], batch["label"].shape)
    assert found.tolist() == [[1, 4, 2], [7, 0, 0]] and batch["label"].tolist() == [[1, 0, 0], [1, -1, -1]]


# The watch


def alarms(path):
    return [json.loads(line)["alarm"] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_loss_at_ln_of_the_group_size_is_said_once_and_again_after_it_was_over(tmp_path):
    watch = Watch(tmp_path / "alarms.jsonl", quiet_steps=10)
    for step in range(1, WINDOW + 10):
        watch.step(step, 0.7, 1.0, 0.1)
    assert not alarms(tmp_path / "alarms.jsonl")  # of warm-up nothing is said
    for step in range(WINDOW + 10, 2 * WINDOW):
        watch.step(step, 0.7, 1.005, 0.1)
    assert alarms(tmp_path / "alarms.jsonl") == ["at_chance"]
    for step in range(2 * WINDOW):
        watch.step(100 + step, 0.7, 0.5, 0.1)
    for step in range(2 * WINDOW):
        watch.step(300 + step, 0.7, 1.0, 0.1)
    assert alarms(tmp_path / "alarms.jsonl") == ["at_chance", "at_chance"]
    assert "ln(group size)" in watch.alarms[0]["line"]


def test_a_run_that_learns_raises_no_alarm(tmp_path):
    watch = Watch(tmp_path / "alarms.jsonl")
    for step in range(1, 500):
        watch.step(step, 0.7, 0.9, 0.1)
    watch.validated(500, constant=False)
    assert not watch.alarms and not alarms(tmp_path / "alarms.jsonl")


def test_one_constant_score_and_a_loss_that_is_no_number_are_said(tmp_path):
    watch = Watch(tmp_path / "alarms.jsonl")
    watch.step(1, float("nan"), 0.9, 0.1)
    watch.validated(2, constant=True)
    for step in range(3, WINDOW + 3):
        watch.step(step, 0.5, 0.9, 0.0)
    assert alarms(tmp_path / "alarms.jsonl") == ["not_finite", "constant_score", "constant_score"]


# Validation, calibration, outcome


def groups_of(*sizes):
    return [Group(f"q{i}", tuple(Passage(str(j), f"{i}.{j}") for j in range(n)), 1) for i, n in enumerate(sizes)]


def test_metrics_follow_the_ranking_and_a_constant_score_gains_nothing():
    found = measure(groups_of(3, 3), np.array([3.0, 1.0, 2.0, 1.0, 3.0, 2.0]))
    assert found.values["mrr@10"].tolist() == pytest.approx([1, 1 / 3]) and not found.constant
    flat = measure(groups_of(3, 3), np.zeros(6))
    assert flat.values["mrr@10"].tolist() == pytest.approx([1 / 3, 1 / 3]) and flat.constant


def test_calibration_finds_the_true_probabilities_whatever_the_scale():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000)
    relevant = rng.random(20_000) < 1 / (1 + np.exp(-(1.5 * logits - 2)))
    for scale, shift in ((1, 0), (100, -40), (0.01, 7)):
        platt = fit_platt(logits * scale + shift, relevant)
        shares = platt(logits * scale + shift)
        assert calibration_error(shares, relevant) < 0.02
        assert platt.slope * scale == pytest.approx(1.5, abs=0.1)
    assert calibration_error(1 / (1 + np.exp(-logits * 5)), relevant) > 0.2


def outcome(val=0.1, old=0.0, slope=1.0, constant=False, shift=0.0):
    def change(by):
        return Comparison(50, 0.5, 0.5 + by, by, by - 0.01, by + 0.01)

    return Outcome(change(val), change(old), Platt(slope, 0.0), constant, shift, 0.01)


def test_a_better_model_is_not_refused():
    assert outcome().refusal == "" == outcome(old=-0.009).refusal


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"val": 0.0}, "not better than the base model on the validation set"),
        ({"val": -0.2}, "not better than the base model on the validation set"),
        ({"old": -0.02}, "worse than the base model on the forgetting set"),
        ({"slope": -1.0}, "answers get lower scores"),
        ({"slope": 0.0}, "answers get lower scores"),
        ({"constant": True}, "one and the same score"),
        ({"shift": 0.2}, "differ from the trained model's by up to 0.2"),
    ],
)
def test_a_model_is_refused_in_a_line(changes, reason):
    refusal = outcome(**changes).refusal
    assert reason in refusal and "\n" not in refusal


def test_a_comparison_is_paired():
    found = compare(np.array([0.1, 0.9, 0.5]), np.array([0.2, 1.0, 0.6]))
    assert found.change == pytest.approx(0.1) and found.low == pytest.approx(found.high)
