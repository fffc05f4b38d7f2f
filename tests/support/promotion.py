"""Evaluations, model folders and tenants for the tests of promotion."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from evaluation.comparison import BY_RANK
from evaluation.metrics import compare_systems
from evaluation.systems import model_hash
from reward.settings.recipe import TENANT_CONFIGS

KEY = "PROMOTION_KEY"
SLICES = ("short", "profile")


def write_model(folder: Path, weights: str) -> Path:
    """A folder that counts as a model; `weights` makes it another one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    return folder


def write_tenant(folder: Path, **promotion: Any) -> Path:
    """The sample tenant fivedoctors with promotion settings of its own."""
    path = folder / "tenant.yaml"
    path.write_text(
        (TENANT_CONFIGS / "fivedoctors.yaml").read_text(encoding="utf-8")
        + "\n"
        + yaml.safe_dump({"promotion": promotion}, allow_unicode=True),
        encoding="utf-8",
    )
    return path


def comparison(win: int = 60, tie: int = 120, loss: int = 20, gain: float = 0.4) -> dict[str, Any]:
    """A `win_rate` entry, computed as the evaluation does; a win and a loss change MRR@10 by `gain`."""
    return deepcopy(_comparison(win, tie, loss, gain))


@lru_cache
def _comparison(win: int, tie: int, loss: int, gain: float) -> dict[str, Any]:
    a = [0.5 + gain] * win + [0.5] * tie + [0.5 - gain] * loss
    b = [0.5] * len(a)
    return compare_systems(a, b, "mrr@10", [{"mrr@10": v} for v in a], [{"mrr@10": v} for v in b])


def evaluation(models: dict[str, Path], **changes: Any) -> dict[str, Any]:
    """A `metrics.json` in which every model passes every rule against the baseline and the other models.

    `changes`: dotted path -> value in the place of what is there; None removes it.
    """
    pairs = [(a, b) for a in models for b in ("baseline", *models) if a != b]
    better = {f"{a}_vs_{b}": comparison() for a, b in pairs}
    judged = {"rate": 0.7, "ci95": [0.6, 0.8], "sensitivity": 0.9, "specificity": 0.9, "n_labels": 100}
    grades = {"rewrite_quality": 4.5, "domain_fit": 4.5, "intent_kept": 4.7, "retrievability": 4.4, "overall": 4.5}
    metrics: dict[str, Any] = {
        "systems": {a: {"mrr@10": 0.6, "n": 200, "ci95": {"mrr@10": [0.55, 0.65]}} for a in models},
        "slices": {
            name: {a: {"mrr@10": 0.6, "n": 200, "ci95": {"mrr@10": [0.55, 0.65]}} for a in models} for name in SLICES
        },
        "win_rate": dict(better),
        "slice_win_rate": {name: dict(better) for name in SLICES},
        "judge": {
            "forced": False,
            "systems": {
                a: {**grades, "n": 200, "ci95": {k: [v - 0.1, v + 0.1] for k, v in grades.items()}} for a in models
            },
            "win_rate": {
                pair: {"win": 130, "tie": 0, "loss": 70, "rate": 0.65, "ci95": [0.58, 0.72], "corrected": judged}
                for pair in better
            },
        },
        "harmed": {a: {"share": 0.05, "n": 200, "ci95": [0.02, 0.08], "sample_ids": []} for a in models},
        "latency_ms": {a: {"p50": 300.0, "p95": 500.0, "n": 200} for a in models},
        "cost_per_1000": {a: {"usd": 0.8} for a in models},
        "provenance": {
            "tenant": "fivedoctors",
            "models": {a: {"path": str(folder), "sha256": model_hash(folder)} for a, folder in models.items()},
            "counts": {"samples": 200, "evaluated": 200, "abstained": 0},
            "judged_by": BY_RANK,
            "retriever": {
                "fingerprint": "0123456789abcdef",
                "training": {a: {"kb_version": "7", "reranker": "bge@0123456789ab", "changed": []} for a in models},
            },
        },
    }
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = metrics
        for key in parents:
            node = node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return metrics


def write_evaluation(folder: Path, metrics: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder
