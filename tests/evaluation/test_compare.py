"""evaluation.compare and evaluation.report end to end, against a real retrieval service on loopback."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from evaluation import compare, report
from evaluation.page.run_files import RunFiles
from evaluation.systems import model_hash
from evaluation.texts import load_texts
from reward.records.files import write_atomically
from reward.records.sample import Sample
from tests.support.asgi_server import AsgiServer
from tests.support.rank_service import RankService, read_run, run, sample


def test_original_and_baseline(tmp_path: Path, tenant: Path, service: RankService) -> None:
    """The original ranks the passage third; the baseline first (4 times), third (2) and fifth (2)."""
    ranks = [1, 1, 1, 1, 3, 3, 5, 5]
    samples = [
        sample(i, f"rank {rank}", slices=("systematic",) if rank == 5 else ("random",)) for i, rank in enumerate(ranks)
    ]
    (tmp_path / "log.jsonl").write_text('{"step": 1, "avg_reward": 0.1}\n{"step": 2, "avg_reward": 0.5}\n')
    (tmp_path / "costs.json").write_text('{"sft": {"seconds": 12.5, "peak_gb": 2.0}}')
    more = ["--train-log", str(tmp_path / "log.jsonl"), "--costs", str(tmp_path / "costs.json")]
    assert run(tmp_path, tenant, service, samples, *more) == 0
    metrics, rows = read_run(tmp_path)
    assert list(metrics["systems"]) == ["original", "baseline"]
    original, baseline = metrics["systems"]["original"], metrics["systems"]["baseline"]
    assert set(baseline) == {"success@1", "recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10", "n", "ci95"}
    assert (original["recall@1"], original["recall@5"], original["n"]) == (0, 1, 8)
    assert original["mrr@10"] == pytest.approx(1 / 3)
    assert baseline["recall@1"] == 0.5
    assert baseline["mrr@10"] == pytest.approx((4 + 2 / 3 + 2 / 5) / 8)
    assert metrics["slices"]["systematic"]["baseline"]["mrr@10"] == pytest.approx(1 / 5)
    assert metrics["slices"]["random"]["baseline"]["n"] == 6
    result = metrics["win_rate"]["baseline_vs_original"]
    assert (result["win"], result["tie"], result["loss"]) == (4, 2, 2)
    assert result["rate"] == pytest.approx(4 / 6)
    assert metrics["reward"] == {"first": 0.1, "last": 0.5, "steps": 2}
    assert metrics["seconds"]["sft"] == 12.5
    assert metrics["peak_gb"]["sft"] == 2.0
    assert metrics["provenance"]["scorer"] == "lexical"
    assert metrics["provenance"]["counts"]["abstained"] == 0
    found = {"rewrite": "rank 5", "rank": 5, "top1": 0.18, "gate": "language_switch"}
    assert rows[6]["systems"]["baseline"] == found
    # The service saw what the house asks for, and each pair of query and rewrite once.
    assert {(b["top_k"], b["score_threshold"], b["tenant_id"]) for b in service.bodies} == {(100, 0.0, "shop")}
    assert set(service.calls.values()) == {1}


def test_equal_rewrites_are_retrieved_once(tmp_path: Path, tenant: Path, service: RankService) -> None:
    samples = [sample(i, f"rank {i + 1}", query=f"rank {i + 1}") for i in range(4)]
    assert run(tmp_path, tenant, service, samples) == 0
    assert sum(service.calls.values()) == 4
    assert read_run(tmp_path)[0]["win_rate"]["baseline_vs_original"]["tie"] == 4


def test_failed_call_excludes_the_sample_for_every_system(tmp_path: Path, tenant: Path, service: RankService) -> None:
    samples = [sample(i, "rank 1") for i in range(4)]
    samples += [sample(10, "rank 1", query="broken 1"), sample(11, "", query="no baseline")]
    assert run(tmp_path, tenant, service, samples) == 0
    metrics, rows = read_run(tmp_path)
    assert {summary["n"] for summary in metrics["systems"].values()} == {4}
    assert metrics["systems"]["baseline"]["recall@1"] == 1
    assert metrics["provenance"]["counts"] == {
        "samples": 6,
        "evaluated": 4,
        "abstained": 2,
        "without_relevant_passages": 0,
    }
    assert [row["abstained"] is None for row in rows] == [True] * 4 + [False] * 2
    assert "HTTP 400" in rows[4]["abstained"]
    # The original's answer is known, yet takes no part.
    assert rows[4]["systems"]["original"]["rank"] == 3


def test_rewrites_made_elsewhere_compete(tmp_path: Path, tenant: Path, service: RankService, capsys) -> None:
    samples = [sample(i, "rank 3") for i in range(4)]
    heuristic = tmp_path / "heuristic.jsonl"
    rows = [{"query": f" {s.original_query}", "history_context": "", "rewritten_query": "rank 1"} for s in samples]
    write_atomically(heuristic, map(json.dumps, rows))
    assert run(tmp_path, tenant, service, samples, "--recorded", f"with_title={heuristic}") == 0
    metrics, _ = read_run(tmp_path)
    assert metrics["systems"]["with_title"]["recall@1"] == 1
    assert metrics["win_rate"]["with_title_vs_baseline"]["win"] == 4
    assert metrics["provenance"]["recorded"].keys() == {"with_title"}
    capsys.readouterr()
    # A sample that nobody recorded is an error, never an empty rewrite.
    damages = [
        (rows[1:], "no rewrite of t_000 (1 of 4 samples)"),
        ([{"query": "x"}], "row 1: rewritten_query is missing"),
    ]
    for damaged, message in damages:
        write_atomically(heuristic, map(json.dumps, damaged))
        assert run(tmp_path, tenant, service, samples, "--recorded", f"with_title={heuristic}") == 2
        assert message in capsys.readouterr().err


def test_unreachable_service_is_an_error_not_a_zero(tmp_path: Path, tenant: Path, service: RankService, capsys) -> None:
    samples = [sample(i, "rank 1", query=f"broken {i}") for i in range(3)]
    assert run(tmp_path, tenant, service, samples) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "no sample could be compared" in told and told.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_empty_rewrite_finds_nothing_and_is_not_sent(tmp_path: Path, tenant: Path, service: RankService) -> None:
    assert run(tmp_path, tenant, service, [sample(0, " "), sample(1, "rank 1")]) == 0
    metrics, rows = read_run(tmp_path)
    assert rows[0]["systems"]["baseline"] == {"rewrite": " ", "rank": None, "top1": 0.0, "gate": "empty"}
    assert metrics["systems"]["baseline"]["mrr@10"] == 0.5
    assert sum(service.calls.values()) == 3


def test_without_relevant_passages_the_first_hits_score_decides(
    tmp_path: Path, tenant: Path, service: RankService
) -> None:
    samples = [sample(i, "rank 1", relevant=False) for i in range(6)]
    assert run(tmp_path, tenant, service, samples) == 0
    metrics, rows = read_run(tmp_path)
    assert metrics["systems"]["baseline"]["top1"] == pytest.approx(0.9)
    assert "mrr@10" not in metrics["systems"]["baseline"]
    assert metrics["win_rate"]["baseline_vs_original"]["win"] == 6
    assert metrics["provenance"]["judged_by"] == "score of the first hit"
    page = report.render_report(RunFiles(metrics, rows, []), load_texts("report", "en"))
    assert "No relevant passages are known" in page


def test_hits_without_ids_are_refused(tmp_path: Path, tenant: Path, service: RankService, capsys) -> None:
    service.with_ids = False
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")]) == 2
    assert "hits carry no doc_id" in capsys.readouterr().err


def test_bad_arguments_are_one_line(tmp_path: Path, tenant: Path, service: RankService, capsys) -> None:
    twice = [sample(1, "rank 1"), sample(1, "rank 2")]
    (tmp_path / "empty").mkdir()
    cases = [
        (twice, [], "sample_id 't_001' occurs more than once"),
        (twice[:1], ["--model", "rl"], "expected NAME=PATH"),
        (twice[:1], ["--model", "baseline=x"], "is taken"),
        (twice[:1], ["--model", "rl=x", "--recorded", "rl=y"], "is taken"),
        (twice[:1], ["--recorded", "title"], "expected NAME=PATH"),
        (twice[:1], ["--model", f"rl={tmp_path / 'empty'}"], "not a Hugging Face model folder, lacks config.json"),
        (twice[:1], ["--train-log", str(tmp_path / "none.jsonl")], "no such file"),
        (twice[:1], ["--costs", str(tenant)], "not JSON"),
    ]
    for samples, more, message in cases:
        assert run(tmp_path, tenant, service, samples, *more) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and message in told and told.count("\n") == 1


def test_model_hash_follows_content_not_provenance(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer_config.json", "model.safetensors", "provenance.json"):
        (tmp_path / name).write_text("1")
    before = model_hash(tmp_path)
    (tmp_path / "provenance.json").write_text("2")
    assert model_hash(tmp_path) == before
    (tmp_path / "model.safetensors").write_text("2")
    assert model_hash(tmp_path) != before


def test_held_out_slices_count_only_in_their_own_metrics():
    from evaluation.comparison import compare_answers
    from evaluation.retrieval import Found

    def found(rank: int) -> Found:
        return Found((*(f"n{i}" for i in range(rank - 1)), "p1"), rank, 1 / rank)

    samples = [sample(i, "b", slices=("unseen_wording",) if i < 4 else ("regular",)) for i in range(10)]
    answers = {"rl": [found(3)] * 4 + [found(1)] * 6, "baseline": [found(1)] * 4 + [found(2)] * 6}
    metrics = compare_answers(samples, answers, by_rank=True, seed=0, held_out_slices=["unseen_wording"])
    assert (metrics["systems"]["rl"]["n"], metrics["systems"]["rl"]["recall@1"]) == (6, 1.0)
    assert metrics["slices"]["unseen_wording"]["rl"]["n"] == 4
    assert metrics["win_rate"]["rl_vs_baseline"]["loss"] == 0
    assert metrics["held_out_slices"]["unseen_wording"]["win_rate"]["rl_vs_baseline"]["loss"] == 4


def test_passages_that_nothing_reaches_are_told(tmp_path: Path, tenant: Path, service: RankService) -> None:
    """Relevant passages of another knowledge base give zeros everywhere: no finding about rewriting."""
    samples = [
        sample(0, "rank 1"),
        *(sample(i, "rank 1").model_copy(update={"relevant_doc_ids": ("z",)}) for i in (1, 2)),
    ]
    assert run(tmp_path, tenant, service, samples) == 0
    missing = read_run(tmp_path)[0]["provenance"]["missing"]
    assert any(sentence.startswith("2 of 3 samples: no system finds a relevant passage") for sentence in missing)
    assert run(tmp_path, tenant, service, samples[:1]) == 0
    assert not any("no system finds" in sentence for sentence in read_run(tmp_path)[0]["provenance"]["missing"])


def test_a_service_that_finds_nothing_is_no_service_without_ids(tmp_path: Path, tenant: Path, capsys) -> None:
    with loopback_retrieval([]) as url:
        assert compare_with(tmp_path, tenant, url, [sample(0, "rank 1")]) == 2
    assert "finds nothing for any rewrite of any sample" in capsys.readouterr().err


def test_nameless_hits_and_passages_of_one_document_count_at_their_places(tmp_path: Path, tenant: Path) -> None:
    hits = [{"content": "a", "score": 1.0, "doc_id": name} for name in (None, None, "d", "d", "p1")]
    with loopback_retrieval(hits) as url:
        assert compare_with(tmp_path, tenant, url, [sample(0, "rank 1")]) == 0
    found = read_run(tmp_path)[0]["systems"]["baseline"]
    assert (found["recall@5"], found["success@1"], found["mrr@10"]) == (1.0, 0.0, pytest.approx(1 / 5))
    assert found["ndcg@10"] == pytest.approx(1 / math.log2(6))


@pytest.mark.parametrize("price", ["inf", "nan", "-1"])
def test_a_price_that_is_none_is_refused(tmp_path: Path, tenant: Path, service: RankService, capsys, price) -> None:
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")], "--usd-per-hour", price) == 2
    assert "--usd-per-hour" in capsys.readouterr().err


@contextmanager
def loopback_retrieval(hits: list[dict[str, Any]]) -> Iterator[str]:
    """A retrieval service that always finds the same hits."""
    app = FastAPI()

    @app.post("/api/chat/general_rag")
    async def general_rag() -> dict[str, Any]:
        return {"data": {"recall": hits, "reranker": "lexical"}}

    with AsgiServer(app) as server:
        yield server.url


def compare_with(tmp_path: Path, tenant: Path, url: str, samples: list[Sample]) -> int:
    write_atomically(tmp_path / "test.jsonl", [one.to_json() for one in samples])
    fixed = ["--test", str(tmp_path / "test.jsonl"), "--tenant", str(tenant), "--out", str(tmp_path / "run")]
    return compare.main([*fixed, "--rag-url", url])
