"""A run's rollouts as canonical RL records: candidates, hits with contents, both verdicts, reward."""

import json

import pytest

from reward.export_rollouts import canonical_sample, main
from reward.ledger.ledger import Ledger
from reward.records.outcome import AbstainReason, Evidence, Judgement, Verdict, passage_key
from reward.records.sample import Hit, Sample
from reward.settings.recipe import LedgerSettings
from tests.support.logged_rollouts import make_rollout, make_sample, pointwise, write_run

BY_QUALITY = make_sample(11).model_copy(update={"relevant_doc_ids": ()})
REWRITE = "钙片 用法用量"
GRADES = {"改写质量": 5, "领域适配": 5, "意图保持": 5, "可检索性": 5}


def pairwise(preference: float) -> Judgement:
    return Judgement(mode="pairwise", preference=preference, orders_agree=True, intent=5)


def both_verdicts(policy: int, baseline: int) -> Judgement:
    graded = Verdict(quality=4, domain=4, intent=5, retrievability=3, facts_kept=True, reason="尚可")
    return pointwise(policy, baseline).model_copy(update={"baseline": graded})


def test_a_rollout_as_the_canonical_record():
    hits = tuple(Hit(content="", reranker_score=s, doc_id=d) for s, d in ((0.9, "p11"), (0.6, "x"), (0.3, "y")))
    rollout = make_rollout(11, judgement=both_verdicts(5, 4), rewrite=f"{REWRITE}\n".strip())
    rollout = rollout.model_copy(update={"policy": Evidence(top_hits=hits, rank=1)})
    sample = Sample.model_validate_json(canonical_sample(rollout).to_json())
    assert (sample.candidates.policy, sample.candidates.baseline) == (REWRITE, rollout.baseline_rewrite)
    assert [hit.doc_id for hit in sample.retrieval_results.policy] == ["p11", "x", "y"]
    assert sample.evaluation == {
        "gpt5_scores": {
            "qwen_8b": {**GRADES, "综合得分": 5.0, "评分理由": "更清楚"},
            "qwen_32b": {
                **{"改写质量": 4, "领域适配": 4, "意图保持": 5, "可检索性": 3, "事实一致": True},
                **{"综合得分": 4.0, "评分理由": "尚可"},
            },
        },
        "retrieval_metrics": {
            "qwen_8b": {"top1_score": 0.9, "avg_top3_score": pytest.approx(0.6), "recall_at_3": 1.0},
            "qwen_32b": {"top1_score": 0.7, "avg_top3_score": pytest.approx(0.6), "recall_at_3": 0.0},
        },
        "winner": "qwen_8b",
        "margin": 1.0,
        "outcome": {"kind": "scored"},
    }
    assert sample.reward == rollout.outcome.reward


@pytest.mark.parametrize(
    ("judgement", "winner", "margin"),
    [(pointwise(3, 4), "qwen_32b", 1.0), (pointwise(4, 4), "tie", 0.0), (pairwise(1.0), "qwen_8b", None),
     (pairwise(0.0), "tie", None), (None, None, None)],
)  # fmt: skip
def test_winner_and_margin(judgement, winner, margin):
    evaluation = canonical_sample(make_rollout(11, judgement=judgement)).evaluation
    assert (evaluation["winner"], evaluation["margin"]) == (winner, margin)


def test_what_is_not_known_is_none():
    sample = canonical_sample(make_rollout(11, failed=AbstainReason.RAG))
    unknown = {"top1_score": None, "avg_top3_score": None, "recall_at_3": None}
    assert sample.reward is None and sample.evaluation["retrieval_metrics"]["qwen_8b"] == unknown
    found_nothing = make_rollout(11, sample=BY_QUALITY).model_copy(update={"policy": Evidence()})
    metrics = canonical_sample(found_nothing).evaluation["retrieval_metrics"]["qwen_8b"]
    assert metrics == {"top1_score": 0.0, "avg_top3_score": 0.0, "recall_at_3": None}


def test_what_the_log_does_not_know_stays_open():
    old = pointwise(4, 3)  # as runs logged it without the baseline's verdict
    evaluation = canonical_sample(make_rollout(11, judgement=old)).evaluation
    assert evaluation["gpt5_scores"]["qwen_32b"] == {"综合得分": 3.0}
    compared = canonical_sample(make_rollout(11, judgement=pairwise(1.0))).evaluation
    assert compared["gpt5_scores"] == {"qwen_8b": None, "qwen_32b": None}
    assert compared["preference"] == {"preference": 1.0, "orders_agree": True, "意图保持": 5.0}


def with_passages(rollout, *contents):
    hits = tuple(Hit(content="", reranker_score=0.5, doc_id=text) for text in contents)
    found = Evidence(top_hits=hits, rank=1, passages=tuple(map(passage_key, contents)))
    return rollout.model_copy(update={"policy": found, "baseline": found})


@pytest.fixture
def run(tmp_path):
    """Three rollouts, scored, gated and abstained; the ledger knows one of two contents."""
    ledger = Ledger(LedgerSettings(path=tmp_path / "run" / "ledger.sqlite", run_id="r"))
    ledger.keep_passages({passage_key("鱼油的用法"): "鱼油的用法"})
    scored = with_passages(make_rollout(11, judgement=both_verdicts(5, 4)), "鱼油的用法", "不在账本里")
    rollouts = [scored, make_rollout(11, rewrite=""), make_rollout(11, failed=AbstainReason.RAG)]
    yield write_run(tmp_path / "run", rollouts)
    ledger.close()


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_command_writes_every_rollout_with_what_is_known(run, tmp_path, capsys):
    assert main(["--run", str(run), "--out", str(tmp_path / "out.jsonl")]) == 0  # while the ledger is open
    scored, gated, abstained = read(tmp_path / "out.jsonl")
    assert [hit["content"] for hit in scored["retrieval_results"]["qwen_8b_results"]] == ["鱼油的用法", ""]
    assert set(scored["evaluation"]["gpt5_scores"]["qwen_32b"]) >= {"改写质量", "综合得分", "评分理由"}
    assert gated["reward"] == -1.0 and gated["evaluation"]["outcome"]["reason"] == "empty"
    assert abstained["reward"] is None and abstained["evaluation"]["outcome"]["reason"] == "rag_failed"
    for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines():
        Sample.model_validate_json(line)
    said = capsys.readouterr()
    assert "3 records (1 abstained, 1 gated, 1 scored)" in said.out and "5 of 7 hits without content" in said.err


def test_a_run_without_a_ledger_beside_it(run, tmp_path, capsys):
    (run / "ledger.sqlite").rename(tmp_path / "elsewhere.sqlite")
    (run / "ledger.sqlite-wal").rename(tmp_path / "elsewhere.sqlite-wal")
    assert main(["--run", str(run), "--out", str(tmp_path / "out.jsonl")]) == 0
    assert "7 of 7 hits without content" in capsys.readouterr().err
    chosen = ["--ledger", str(tmp_path / "elsewhere.sqlite")]
    assert main(["--run", str(run), "--out", str(tmp_path / "out.jsonl"), *chosen]) == 0
    assert "5 of 7 hits" in capsys.readouterr().err


def test_bad_input_is_one_line(run, tmp_path, capsys):
    assert main(["--run", str(tmp_path / "no"), "--out", str(tmp_path / "out.jsonl")]) == 2
    assert main(["--run", str(run), "--out", str(tmp_path / "o.jsonl"), "--ledger", str(tmp_path / "no.sqlite")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)
    assert not (tmp_path / "out.jsonl").exists() and not (tmp_path / "o.jsonl").exists()
