"""Turn answers into the parts of `metrics.json`: systems, slices, win rates. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.metrics import TOP1, compare_systems, query_metrics, reciprocal_rank, summarise
from evaluation.retrieval import Found
from evaluation.systems import BASELINE, DESCRIPTION, ORIGINAL
from reward.records.sample import Sample

BY_RANK = "rank of the first relevant passage"
BY_TOP1 = "score of the first hit"


def compare_answers(
    samples: Sequence[Sample],
    found: Mapping[str, Sequence[Found]],
    *,
    by_rank: bool,
    seed: int,
    held_out_slices: Sequence[str] = (),
) -> dict[str, Any]:
    """Compute `systems`, `slices`, `win_rate` and `held_out_slices` over samples that every system answered.

    Args:
        found: system -> what its rewrite of each sample retrieved, in the order of `samples`.
        by_rank: judge by the samples' relevant passages; otherwise by the score of the first hit.
        held_out_slices: slices that do not count in `systems` and `win_rate`. They are in `slices`, and in
            `held_out_slices` with win rates of their own.
    """
    metrics = {name: _query_metrics(samples, answers, by_rank) for name, answers in found.items()}
    slices = sorted({name for sample in samples for name in sample.metadata.slices})
    members = {s: [i for i, sample in enumerate(samples) if s in sample.metadata.slices] for s in slices}
    # A win is decided by the rank itself, not by a metric cut off at 10: rank 11 still beats rank 40.
    deciding = {
        name: [reciprocal_rank(answer.rank) if by_rank else answer.top1 for answer in answers]
        for name, answers in found.items()
    }
    headline = [i for i, sample in enumerate(samples) if not set(held_out_slices) & set(sample.metadata.slices)]
    headline_metric = "mrr@10" if by_rank else TOP1

    def summaries(rows: Sequence[int]) -> dict[str, Any]:
        return {name: summarise([values[i] for i in rows], seed=seed) for name, values in metrics.items()}

    def win_rates(rows: Sequence[int]) -> dict[str, Any]:
        def of(values: Mapping[str, Sequence[Any]], name: str) -> list[Any]:
            return [values[name][i] for i in rows]

        return {
            f"{a}_vs_{b}": compare_systems(
                of(deciding, a), of(deciding, b), headline_metric, of(metrics, a), of(metrics, b), seed=seed
            )
            for a, b in pairs(list(found))
        }

    return {
        "systems": summaries(headline),
        "slices": {s: summaries(rows) for s, rows in members.items()},
        "win_rate": win_rates(headline),
        "held_out_slices": {
            s: {"n": len(members[s]), "win_rate": win_rates(members[s])} for s in held_out_slices if members.get(s)
        },
    }


def pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs to compare: models and baseline, `rl` and `sft`, then models and baseline with the original."""
    models = [name for name in systems if name not in (ORIGINAL, DESCRIPTION, BASELINE)]
    wanted = [(model, BASELINE) for model in models] + [("rl", model) for model in models if model != "rl"]
    wanted += [(system, ORIGINAL) for system in (*models, BASELINE)]
    return [(a, b) for a, b in wanted if a in systems and b in systems]


def _query_metrics(samples: Sequence[Sample], answers: Sequence[Found], by_rank: bool) -> list[dict[str, float]]:
    """Return one system's metrics of every sample, in their order."""
    if not by_rank:
        return [{TOP1: answer.top1} for answer in answers]
    ids = [sample.sample_id for sample in samples]
    by_query = query_metrics(
        {key: answer.doc_ids for key, answer in zip(ids, answers, strict=True)},
        {sample.sample_id: sample.relevant_doc_ids for sample in samples},
    )
    return [by_query[key] for key in ids]
