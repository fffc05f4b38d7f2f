"""Queries that rewriting hurts, and what keeping the original query would give. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.significance import bootstrap_mean, share_interval


def harmed(sample_ids: Sequence[str], system: Sequence[float], original: Sequence[float]) -> dict[str, Any]:
    """Compute the share of queries on which a system does worse than the original query, with Wilson's 95 % interval.

    Args:
        system, original: what decides each query (higher is better), in the order of `sample_ids`.

    Returns:
        `share`, `n`, `ci95`, `sample_ids` with the greatest loss first.
    """
    losses = {
        i: before - after for i, (after, before) in enumerate(zip(system, original, strict=True)) if after < before
    }
    worst_first = sorted(losses, key=lambda i: (-losses[i], i))
    n = len(sample_ids)
    return {
        "share": len(losses) / n,
        "n": n,
        "ci95": list(share_interval(len(losses), n)),
        "sample_ids": [sample_ids[i] for i in worst_first],
    }


def pass_through(
    metric: str,
    system: Sequence[Mapping[str, float]],
    original: Sequence[Mapping[str, float]],
    rules: Mapping[str, Sequence[bool]],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the mean of `metric` when some queries go out as they are.

    Args:
        system, original: each query's metrics.
        rules: rule -> whether it keeps the original, for each query. A rule may use only what a service knows.

    Returns:
        `share_kept`, `metric`, `ci95` of an oracle, which keeps the original exactly where it does better; the same for
        each rule under `rules`.
    """
    after, before = ([query[metric] for query in queries] for queries in (system, original))
    oracle = [b > a for a, b in zip(after, before, strict=True)]

    def outcome(keeps: Sequence[bool]) -> dict[str, Any]:
        values = [b if kept else a for a, b, kept in zip(after, before, keeps, strict=True)]
        return {
            "share_kept": sum(keeps) / len(keeps),
            metric: sum(values) / len(values),
            "ci95": list(bootstrap_mean(values, seed=seed)),
        }

    return {**outcome(oracle), "rules": {name: outcome(keeps) for name, keeps in rules.items()}}
