"""A finished comparison of rl with the baseline and the original: real metrics of made-up ranks, every part filled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.comparison import compare_answers
from evaluation.retrieval import Found
from reward.records.sample import Context, Metadata, Sample

Metrics = dict[str, Any]
Rows = list[dict[str, Any]]


def finished_run(win: int, tie: int, loss: int) -> tuple[Metrics, Rows]:
    """Return `metrics.json` and the rows of `rewrites.jsonl` of a comparison that only retrieval has judged.

    Args:
        win, tie, loss: queries of rl against the baseline. The original finds the right passage third.
    """

    def found(rank: int) -> Found:
        return Found((*(f"n{i}" for i in range(rank - 1)), "p1"), rank, 1 / rank)

    ranks = [(1, 2)] * win + [(1, 1)] * tie + [(4, 1)] * loss
    samples = [
        Sample(
            sample_id=f"t_{number:03d}",
            original_query=f"钙片 {number} <b>怎么吃</b>",
            context=Context(user_profile="四十岁"),
            metadata=Metadata(tenant_id="shop", split="test", slices=("systematic",) if number % 5 == 0 else ()),
            relevant_doc_ids=("p1",),
        )
        for number in range(len(ranks))
    ]
    answers = {
        "original": [found(3) for _ in ranks],
        "baseline": [found(baseline) for _, baseline in ranks],
        "rl": [found(rl) for rl, _ in ranks],
    }
    metrics = compare_answers(samples, answers, by_rank=True, seed=0)
    metrics["seconds"], metrics["peak_gb"] = {"evaluation": 3.0}, {}
    metrics["provenance"] = {
        "created_at": "2026-01-01",
        "tenant": "shop",
        "test": {"path": "test.jsonl", "sha256": "0" * 64},
        "models": {"rl": {"path": "final", "sha256": "1" * 64}},
        "counts": {"samples": len(ranks), "evaluated": len(ranks), "abstained": 0, "without_relevant_passages": 0},
        "abstained_because": {},
        "judged_by": "rank of the first relevant passage",
        "scorer": "lexical",
        "llm_judge": {"evaluation": False, "training": None},
        "retrieval": {"url": "http://127.0.0.1", "kb_name": "default", "top_k": 100, "score_threshold": 0},
        "max_new_tokens": {"rl": 64},
        "cut": {"rl": 0.125},
        "seed": 0,
        "versions": {"python": "3.11"},
    }
    rows = [
        {
            "sample_id": sample.sample_id,
            "query": sample.original_query,
            "context": sample.context.text,
            "slices": list(sample.metadata.slices),
            "abstained": None,
            "systems": {
                name: {"rewrite": f"{name} 改写 {sample.sample_id}", "rank": f[i].rank, "top1": 0.5}
                for name, f in answers.items()
            },
        }
        for i, sample in enumerate(samples)
    ]
    return metrics, rows


def with_everything(metrics: Metrics) -> Metrics:
    """Return the metrics with the parts that a judge, prices and a measured latency add."""
    harmed = [f"t_{number:03d}" for number in range(60, 75)]
    rate = {
        "win": 40,
        "tie": 30,
        "loss": 20,
        "rate": 40 / 60,
        "ci95": [0.55, 0.78],
        "sign_p": 0.01,
        "sign_p_holm": 0.03,
    }
    corrected = {"rate": 0.71, "ci95": [0.5, 0.9], "sensitivity": 0.8, "specificity": 0.7, "n_labels": 120}
    people = {"kappa": 0.62, "kappa_ci95": [0.4, 0.8], "agreement": 0.81}
    grades = {
        "rewrite_quality": 4.1,
        "domain_fit": 4.2,
        "intent_kept": 4.3,
        "retrievability": 4.4,
        "overall": 4.25,
        "n": 90,
        "ci95": {"overall": [4.1, 4.4]},
    }
    provenance = metrics["provenance"] | {
        "missing": ["baseline: cost is not measured: http://" + "very-long-name." * 9 + "example tells none"],
        "measured_as": {"rl": "one request at a time"},
        "retriever": {
            "fingerprint": "0123456789abcdef",
            "index": {"version": 7, "embedder_id": "bge", "reranker": None},
            "training": {"rl": {"changed": ["kb_version: '1' in training, '2' here"]}, "sft": None},
        },
    }
    return metrics | {
        "targets": [
            {"metric": "judge_score", "system": "baseline", "target": 4.2, "measured": 4.0, "met": None},
            {"metric": "judge_score", "system": "rl", "target": 4.5, "measured": 4.25, "met": False},
            {"metric": "top1_accuracy", "system": "rl", "target": 0.85, "measured": 0.9, "met": True},
            {"metric": "latency_ms", "system": "rl", "target": 350, "measured": None, "met": None},
            {"metric": "usd_per_1000", "system": "rl", "target": 0.85, "measured": 0.5, "met": True},
            {"metric": "usd_per_1000", "system": "sft", "target": None, "measured": None, "met": None},
        ],
        "judge": {
            "profile": "gpt5",
            "model": "gpt-5",
            "trained_with": {"rl": "deepseek-v3.1", "sft": None},
            "forced": False,
            "systems": {"baseline": grades, "rl": grades},
            "win_rate": {"rl_vs_baseline": rate | people | {"corrected": corrected}},
            "abstained": {"samples": 3},
        },
        "harmed": {"rl": {"share": 0.15, "n": 110, "ci95": [0.09, 0.2], "sample_ids": harmed}},
        "pass_through": {
            "rl": {"share_kept": 0.2, "mrr@10": 0.95, "ci95": [0.9, 1.0], "rules": {"gates": {"share_kept": 0.05}}}
        },
        "latency_ms": {"baseline": None, "rl": {"p50": 321.4, "p95": 477.0, "n": 50}},
        "tokens": {"baseline": None, "rl": {"input_mean": 120.4, "output_mean": 11.0}},
        "cost_per_1000": {"baseline": None, "rl": {"usd": 0.5}},
        "gated": {"rl": {"share": 0.02, "n": 110, "reasons": {"number_invented": 2, "a_new_reason": 1}}},
        "provenance": provenance,
    }


def write_run(folder: Path, metrics: Metrics | None, rows: Rows | None) -> Path:
    """Write a run's folder; None leaves the file out."""
    folder.mkdir(parents=True, exist_ok=True)
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False), encoding="utf-8")
    if rows is not None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "rewrites.jsonl").write_text(lines, encoding="utf-8")
    return folder
