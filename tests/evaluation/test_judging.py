"""The judge of a comparison: another than the one that trained, in both orders, resumable, corrected by people."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from reward.records.files import write_atomically
from tests.support.loopback_judge import LoopbackJudge
from tests.support.rank_service import RankService, read_run, run, sample

FREE = {"currency": "CNY", "input": 0, "cached_input": 0, "output": 0}
DEAR = {"currency": "USD", "input": 1.25, "cached_input": 0.125, "output": 10}


@pytest.fixture
def judge():
    running = LoopbackJudge(grade=lambda text: {"rank 1": 5, "rank 2": 4, "rank 3": 2}.get(text, 3))
    yield running
    running.close()


def profile(path: Path, judge: LoopbackJudge, **more: Any) -> Path:
    values = {
        "model": "other-judge",
        "base_url": judge.url,
        "attempts": 1,
        "timeout": 60,
        "backoff": [0, 0],
        "price": FREE,
        **more,
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def recorded(path: Path, samples, rewrite: str) -> str:
    write_atomically(path, (json.dumps({"query": s.original_query, "rewritten_query": rewrite}) for s in samples))
    return f"{path.stem}={path}"


def test_grades_and_comparisons_in_both_orders(tmp_path: Path, tenant: Path, service: RankService, judge) -> None:
    """The baseline's `rank 2` grades 4, the recorded `rank 1` 5, the original 3; an equal text costs no comparison."""
    samples = [sample(i, "rank 2" if i else "rank 1") for i in range(4)]
    more = ["--judge", str(profile(tmp_path / "j.yaml", judge)), "--recorded"]
    assert run(tmp_path, tenant, service, samples, *more, recorded(tmp_path / "mine.jsonl", samples, "rank 1")) == 0
    metrics, rows = read_run(tmp_path)
    judged = metrics["judge"]
    assert judged["systems"]["mine"] | {"ci95": None} == {
        "rewrite_quality": 5, "domain_fit": 5, "intent_kept": 5, "retrievability": 5, "overall": 5, "n": 4,
        "facts_kept": None, "ci95": None,
    }  # fmt: skip
    assert judged["systems"]["baseline"]["overall"] == (3 * 4 + 5) / 4
    versus = judged["win_rate"]["mine_vs_baseline"]
    assert (versus["win"], versus["tie"], versus["loss"], versus["rate"]) == (3, 1, 0, 1.0)
    assert versus["corrected"] is None and versus["abstained"] == 0
    assert rows[1]["judge"]["overall"] == {"original": 3, "baseline": 4, "mine": 5}
    assert rows[1]["judge"]["preferred"]["mine_vs_baseline"] == 1
    assert metrics["provenance"]["llm_judge"]["evaluation"] is True
    # Graded: 4 originals, 4 recorded, 3 of the baseline (one is the same text). Compared twice each: 3 unequal pairs of
    # mine and baseline; 4 + 4 with the original, of which one is asked already.
    compared = [data for n in range(len(judge.requests)) if "A" in (data := judge.data(n))]
    assert len(judge.requests) - len(compared) == 11 and len(compared) == 2 * 10
    assert {(d["A"], d["B"]) for d in compared} == {(d["B"], d["A"]) for d in compared}


def test_a_judge_that_prefers_the_first_ties(tmp_path: Path, tenant: Path, service: RankService, judge) -> None:
    judge.prefers_first = True
    samples = [sample(i, "rank 1") for i in range(3)]
    assert run(tmp_path, tenant, service, samples, "--judge", str(profile(tmp_path / "j.yaml", judge))) == 0
    versus = read_run(tmp_path)[0]["judge"]["win_rate"]["baseline_vs_original"]
    assert (versus["win"], versus["tie"], versus["loss"], versus["orders_disagree"]) == (0, 3, 0, 3)
    assert versus["rate"] is None


def test_a_judge_that_dies_half_way(tmp_path: Path, tenant: Path, service: RankService, judge, capsys) -> None:
    """What it answered counts with its n, what is missing is told, and the next run asks for that alone."""
    samples = [sample(i, "rank 1") for i in range(12)]
    path = profile(tmp_path / "j.yaml", judge, max_concurrency=1, price=DEAR)
    judge.faults = [""] * 18 + ["500"] * 1000
    more = ["--judge", str(path), "--max-cost", "5"]
    assert run(tmp_path, tenant, service, samples, *more) == 0
    metrics, _ = read_run(tmp_path)
    assert len(judge.requests) == 18 + 6 + 4 * 2  # ten failed questions in a row, a comparison asks twice: given up
    assert metrics["systems"]["baseline"]["n"] == 12  # retrieval loses nothing
    assert {summary["n"] for summary in metrics["judge"]["systems"].values()} < {6, 7, 8, 9}
    versus = metrics["judge"]["win_rate"]["baseline_vs_original"]
    assert versus["abstained"] == 12 and versus["rate"] is None
    told = next(s for s in metrics["provenance"]["missing"] if s.startswith("judge:") and "lack a grade" in s)
    assert "12 comparisons are missing" in told and "HTTP 500" in told and "not paid for twice" in told
    assert told in capsys.readouterr().out
    spent = metrics["judge"]["spent"]
    answered = {json.dumps(judge.data(n)) for n in range(18)}
    # The judge is back.
    judge.faults = []
    assert run(tmp_path, tenant, service, samples, *more) == 0
    asked = [json.dumps(judge.data(n)) for n in range(32, len(judge.requests))]
    assert not answered & set(asked) and len(asked) == 12 * 2 + 12 * 2 - 18
    metrics, _ = read_run(tmp_path)
    assert {summary["n"] for summary in metrics["judge"]["systems"].values()} == {12}
    assert metrics["judge"]["win_rate"]["baseline_vs_original"]["win"] == 12
    assert metrics["judge"]["spent"]["usd"] > spent["usd"]
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        twice = db.execute("SELECT key FROM calls WHERE status = 'ok' GROUP BY key HAVING count(*) > 1").fetchall()
    assert twice == []
    # A third run asks nothing, and needs no consent any more.
    before = len(judge.requests)
    assert run(tmp_path, tenant, service, samples, "--judge", str(path)) == 0
    assert len(judge.requests) == before


def test_odd_verdicts_abstain(tmp_path: Path, tenant: Path, service: RankService, judge) -> None:
    judge.faults = ["refusal", "cut off", "html", "out of range", "empty verdict"]
    samples = [sample(i, "rank 1") for i in range(6)]
    path = profile(tmp_path / "j.yaml", judge, max_concurrency=1)
    assert run(tmp_path, tenant, service, samples, "--judge", str(path)) == 0
    judged = read_run(tmp_path)[0]["judge"]
    assert sum(judged["abstained"]["grades"].values()) == 5
    assert {summary["n"] for summary in judged["systems"].values()} == {6 - judged["abstained"]["samples"]}


def test_an_empty_rewrite_is_the_worst_and_costs_nothing(tmp_path: Path, tenant: Path, service: RankService, judge):
    samples = [sample(0, " "), sample(1, "rank 1")]
    assert run(tmp_path, tenant, service, samples, "--judge", str(profile(tmp_path / "j.yaml", judge))) == 0
    judged = read_run(tmp_path)[0]["judge"]
    assert judged["systems"]["baseline"]["overall"] == 3
    versus = judged["win_rate"]["baseline_vs_original"]
    assert (versus["win"], versus["loss"]) == (1, 1)
    assert all(judge.data(n).get("改写", "x").strip() for n in range(len(judge.requests)))


def test_the_budget_holds(tmp_path: Path, tenant: Path, service: RankService, judge) -> None:
    """The calls cost more than was estimated: the limit ends them, and the rest is missing by name."""
    samples = [sample(i, "rank 1") for i in range(6)]
    path = profile(tmp_path / "j.yaml", judge, max_concurrency=1, price=DEAR | {"output": 1000})
    assert run(tmp_path, tenant, service, samples, "--judge", str(path), "--max-cost", "1") == 2
    assert not judge.requests
    judge.usage = {"prompt_tokens": 1000, "completion_tokens": 400}
    assert run(tmp_path, tenant, service, samples, "--judge", str(path), "--max-cost", "4") == 0
    metrics, _ = read_run(tmp_path)
    assert 0 < metrics["judge"]["spent"]["usd"] <= 4
    assert any("run budget" in sentence for sentence in metrics["provenance"]["missing"])


def training_run(folder: Path, judge: dict | None, reranker: str = "", start_from: str = "") -> Path:
    """The folder of an RL run as the launcher leaves it, with a model of zeros."""
    final = folder / "final"
    final.mkdir(parents=True)
    rag = {"kb_name": "default", "kb_version": "7"}
    tenant = {"tenant_id": "shop", "short_id": "shop", "system_prompt": "x", "rag": rag}
    (folder / "recipe.yaml").write_text(
        yaml.safe_dump({"recipe": {"start_from": start_from}, "rewriter": {"tenant": tenant, "judge": judge}})
    )
    if reranker:
        (folder / "reranker.json").write_text(json.dumps({"reranker": reranker, "first_step": 1}))
    return final


def test_the_judge_of_the_training_is_refused(
    tmp_path: Path, tenant: Path, service: RankService, judge, capsys
) -> None:
    from evaluation.provenance.training_run import find_training_run, trained_by

    final = training_run(tmp_path / "rl", {"model": "openai/GPT-5", "version": "2025"}, "reranker@123456789012")
    path = profile(tmp_path / "j.yaml", judge, model="gpt-5-2025-08-07")
    more = ["--judge", str(path), "--model", f"rl={final}"]
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")], *more) == 2
    told = capsys.readouterr().err
    assert "gpt-5-2025-08-07 judged the training of rl" in told and "--force-judge" in told and not judge.requests
    runs = {"rl": find_training_run(final), "far": find_training_run(tmp_path / "elsewhere")}
    assert runs["far"] is None and runs["rl"] is not None
    assert (runs["rl"].judge, runs["rl"].reranker) == ("openai/GPT-5@2025", "reranker@123456789012")
    assert trained_by("deepseek-chat", runs) == [] and trained_by("gpt-5", runs) == ["rl"]
    # A damaged recipe, or somebody else's, tells nothing; the search goes on above it.
    for text in ("rewriter: [", "- salt", "name: soup"):
        (final / "recipe.yaml").write_text(text)
        assert find_training_run(final) == runs["rl"]
    # A merged model elsewhere names the checkpoint that it came from.
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / "provenance.json").write_text(json.dumps({"checkpoint": str(final.parent / "global_step_4" / "actor")}))
    assert find_training_run(merged) == runs["rl"]
    assert find_training_run(training_run(tmp_path / "sft", None)).judge == "none"
    # The judge of a run that this one began with taught the model too.
    second = find_training_run(training_run(tmp_path / "rl2", {"model": "deepseek-chat"}, start_from=str(final)))
    assert second.judge == "deepseek-chat, openai/GPT-5@2025" and trained_by("GPT-5", {"rl2": second}) == ["rl2"]


def test_new_tokens_are_those_of_the_training_run(tmp_path: Path) -> None:
    """A merged checkpoint has no record of its own."""
    from evaluation.systems import MAX_NEW_TOKENS, answer_limit

    final = training_run(tmp_path / "rl", None)
    assert answer_limit(final, final.parent) == MAX_NEW_TOKENS
    (final.parent / "run.json").write_text('{"max_new_tokens": 96}')
    assert answer_limit(tmp_path / "merged", final.parent) == 96
    (final / "run.json").write_text('{"max_new_tokens": 64}')
    assert answer_limit(final, final.parent) == 64


def test_the_training_logs_run_counts_too(tmp_path: Path, tenant: Path, service: RankService, judge, capsys) -> None:
    training_run(tmp_path / "rl", {"model": "other-judge"})
    log = tmp_path / "rl" / "reward_metrics.jsonl"
    log.write_text('{"step": 1, "avg_reward": 0.1}\n')
    more = ["--judge", str(profile(tmp_path / "j.yaml", judge)), "--train-log", str(log)]
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")], *more) == 2
    assert "judged the training of --train-log" in capsys.readouterr().err
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")], *more, "--force-judge") == 0
    assert read_run(tmp_path)[0]["judge"]["forced"] is True


def labels(path: Path, judge: LoopbackJudge, people: list[tuple[str, str, str]]) -> Path:
    rows = [
        {"pair_id": f"p{i}", "original_query": f"问 {i}", "rewrite_a": a, "rewrite_b": b, "preferred": preferred}
        for i, (a, b, preferred) in enumerate(people)
    ]
    write_atomically(path, (json.dumps(row, ensure_ascii=False) for row in rows))
    return path


def test_win_rates_are_corrected_by_people(tmp_path: Path, tenant: Path, service: RankService, judge) -> None:
    """The judge always takes the better rank; people agree on 8 of 10 (a) and 9 of 10 (b), and call one a tie."""
    people = [("rank 1", "rank 3", "a")] * 8 + [("rank 3", "rank 1", "a")] * 2
    people += [("rank 3", "rank 1", "b")] * 9 + [("rank 1", "rank 3", "b")] + [("rank 1", "rank 3", "tie")]
    samples = [sample(i, "rank 1" if i < 6 else "rank 3") for i in range(8)]
    more = ["--judge", str(profile(tmp_path / "j.yaml", judge)), "--labels", str(labels(tmp_path / "l", judge, people))]
    assert run(tmp_path, tenant, service, samples, *more) == 0
    metrics, _ = read_run(tmp_path)
    versus = metrics["judge"]["win_rate"]["baseline_vs_original"]
    corrected = versus["corrected"]
    assert (corrected["sensitivity"], corrected["specificity"], corrected["n_labels"]) == (0.8, 0.9, 20)
    assert corrected["rate"] == pytest.approx((6 / 8 + 0.9 - 1) / 0.7)
    assert corrected["ci95"][0] < corrected["rate"] < corrected["ci95"][1] <= 1
    assert versus["agreement"] == pytest.approx(17 / 21) and 0 < versus["kappa"] < versus["agreement"]
    assert metrics["judge"]["labels"]["judged"] == 21


def test_a_judge_no_better_than_chance_corrects_nothing(tmp_path: Path, tenant: Path, service: RankService, judge):
    people = [("rank 3", "rank 1", "a")] * 5 + [("rank 1", "rank 3", "b")] * 5
    more = ["--judge", str(profile(tmp_path / "j.yaml", judge)), "--labels", str(labels(tmp_path / "l", judge, people))]
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")], *more) == 0
    metrics, _ = read_run(tmp_path)
    assert metrics["judge"]["win_rate"]["baseline_vs_original"]["corrected"] is None
    assert any("no better than chance" in sentence for sentence in metrics["provenance"]["missing"])


def test_labels_need_a_judge_and_two_outcomes(
    tmp_path: Path, tenant: Path, service: RankService, judge, capsys
) -> None:
    path = labels(tmp_path / "l", judge, [("rank 1", "rank 3", "a")] * 3)
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")], "--labels", str(path)) == 2
    assert "no --judge is given" in capsys.readouterr().err
    more = ["--judge", str(profile(tmp_path / "j.yaml", judge)), "--labels", str(path)]
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")], *more) == 2
    assert "at least two different labels" in capsys.readouterr().err and not judge.requests
