"""Small runs of what the benchmarks of the drop-in and its tests measure."""

import json

from benchmarks import rewriter_experiments, rewriter_service


def test_no_answer_is_wrong_or_lost(capfd):
    assert rewriter_service.main(["--requests", "40", "--kills", "1"]) == 0
    metrics = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (metrics["wrong"], metrics["lost"], metrics["different_answers"], metrics["original_answers"]) == (
        0,
        0,
        0,
        0,
    )
    assert metrics["rewritten"] > 0 and metrics["original_with_reason"] > 0


def test_equal_arms_are_rarely_told_apart_and_interleaving_needs_fewer_users(capfd, monkeypatch):
    monkeypatch.setattr(rewriter_experiments, "USERS_SEEN", 20_000)
    assert rewriter_experiments.main(["--tests", "20"]) == 0
    metrics = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert metrics["false_positives_a_side_most"] <= 0.2  # of 20 tests
    assert metrics["power_rate_0.05_users_x2"] > 0.5
    assert metrics["users_saved_factor"] > 2
