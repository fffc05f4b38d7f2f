"""Turn answers into the parts of `metrics.json`: systems, slices, win rates. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.harm import harmed, pass_through
from evaluation.metrics import TOP1, compare_systems, query_metrics, reciprocal_rank, summarise
from evaluation.retrieval import Found
from evaluation.significance import holm
from evaluation.slices import slice_members
from evaluation.systems import BASELINE, DESCRIPTION, ORIGINAL
from reward.records.sample import Sample
from reward.services.score_scales import FUSED
from reward.settings.recipe import Language

BY_RANK = "rank of the first relevant passage"
BY_TOP1 = "score of the first hit"


def compare_answers(
    samples: Sequence[Sample],
    found: Mapping[str, Sequence[Found]],
    *,
    by_rank: bool,
    seed: int,
    held_out_slices: Sequence[str] = (),
    gated: Mapping[str, Sequence[str | None]] | None = None,
    language: Language = "zh",
) -> dict[str, Any]:
    """Compute the parts of `metrics.json` that retrieval decides, over samples that every system answered.

    Args:
        found: system -> what its rewrite of each sample retrieved, in the order of `samples`.
        gated: system -> the gate that each of its rewrites fails, None where it fails none.
        by_rank: judge by the samples' relevant passages; otherwise by the score of the first hit.
        held_out_slices: slices that do not count in `systems` and `win_rate`. They are in `slices`, and in
            `held_out_slices` with win rates of their own.

    Returns:
        `systems`, `slices`, `win_rate`, `slice_win_rate`, `held_out_slices`, `harmed` and `pass_through`.
    """
    metrics = {name: _query_metrics(samples, answers, by_rank) for name, answers in found.items()}
    members = slice_members(samples, language)
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

        results = {
            f"{a}_vs_{b}": compare_systems(
                of(deciding, a), of(deciding, b), headline_metric, of(metrics, a), of(metrics, b), seed=seed
            )
            for a, b in pairs(list(found))
        }
        adjusted = holm([result["sign_p"] for result in results.values()])
        return {pair: {**results[pair], "sign_p_holm": p} for pair, p in zip(results, adjusted, strict=True)}

    def against_original(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        ids = [samples[i].sample_id for i in headline]
        chosen = [[values[i] for i in headline] for values in (deciding[name], deciding[ORIGINAL])]
        rules = {
            rule: [keeps[i] for i in headline]
            for rule, keeps in _rules(found[name], found[ORIGINAL], by_rank, (gated or {}).get(name)).items()
        }
        after, before = ([metrics[one][i] for i in headline] for one in (name, ORIGINAL))
        return harmed(ids, *chosen), pass_through(headline_metric, after, before, rules, seed=seed)

    others = [name for name in found if name != ORIGINAL and ORIGINAL in found]
    hurt = {name: against_original(name) for name in others}
    return {
        "systems": summaries(headline),
        "slices": {s: summaries(rows) for s, rows in members.items()},
        "win_rate": win_rates(headline),
        "slice_win_rate": {s: win_rates(rows) for s, rows in members.items()},
        "held_out_slices": {
            s: {"n": len(members[s]), "win_rate": win_rates(members[s])} for s in held_out_slices if members.get(s)
        },
        "harmed": {name: found_harmed for name, (found_harmed, _) in hurt.items()},
        "pass_through": {name: kept for name, (_, kept) in hurt.items()},
    }


def pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs to compare: models and baseline, `rl` and `sft`, then models and baseline with the original."""
    models = [name for name in systems if name not in (ORIGINAL, DESCRIPTION, BASELINE)]
    wanted = [(model, BASELINE) for model in models] + [("rl", model) for model in models if model != "rl"]
    wanted += [(system, ORIGINAL) for system in (*models, BASELINE)]
    return [(a, b) for a, b in wanted if a in systems and b in systems]


def _rules(
    system: Sequence[Found], original: Sequence[Found], by_rank: bool, gated: Sequence[str | None] | None
) -> dict[str, list[bool]]:
    """Return what a service could go by when it keeps the original query, and what each rule would do.

    `gates` asks the reward's gates of the text alone. `higher_score` retrieves with both and keeps the list whose first
    hit scores higher: it needs a reranker's scores, the same one's for both, and known passages to be worth measuring
    (without them that score is the very metric).
    """
    rules = {} if gated is None else {"gates": [gate is not None for gate in gated]}
    origins = {answer.origin for answer in (*system, *original)} - {""}
    if by_rank and len(origins) == 1 and origins != {FUSED}:
        rules["higher_score"] = [before.top1 > after.top1 for after, before in zip(system, original, strict=True)]
    return rules


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
