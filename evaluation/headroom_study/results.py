"""Turn what the rewrites found into one channel's part of `headroom.json`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evaluation.headroom_study.asking import Retrieved
from evaluation.headroom_study.best_of import chosen_by, expected_best, steps_to
from evaluation.headroom_study.study import CONTEXT_ORACLE, ORACLE, Measured
from evaluation.metrics import reciprocal_rank
from evaluation.significance import bootstrap_means
from evaluation.systems import BASELINE, ORIGINAL
from reward.records.sample import Sample

ANY = "best of all that was tried"
_LISTED = 20
Values = dict[str, list[float]]  # system → value of each sample
Value = Callable[[Retrieved], float]


def rr10(found: Retrieved) -> float:
    return reciprocal_rank(found.rank if found.rank and found.rank <= 10 else None)


def success1(found: Retrieved) -> float:
    return float(found.rank == 1)


def top1(found: Retrieved) -> float:
    return found.top1


BY_RANK: dict[str, Value] = {"mrr@10": rr10, "success@1": success1}
BY_SCORE: dict[str, Value] = {"top1": top1}


def channel_results(
    samples: Sequence[Sample],
    measured: Sequence[Measured],
    slices: Mapping[str, Sequence[int]],
    *,
    by_rank: bool,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute systems, gains, best-of curves and slices over the samples that can be compared.

    The first metric is the headline: `mrr@10` with relevant passages, else `top1`. A system is `hindsight` when the
    answer chose its rewrite: nobody can use it, it bounds what rewriting can gain.
    """
    metrics = BY_RANK if by_rank else BY_SCORE
    headline = next(iter(metrics))
    kept = [i for i, one in enumerate(measured) if one.failure is None]
    left_out = Counter(one.failure for one in measured if one.failure)
    lost = [samples[i].sample_id for i, one in enumerate(measured) if one.failure]
    results: dict[str, Any] = {
        "n": len(kept),
        "left_out": dict(left_out.most_common()),
        "left_out_ids": lost[:_LISTED],
    }
    if not kept:
        return results
    rows = [measured[i] for i in kept]
    draws = {name: min(len(row.draws[name]) for row in rows) for name in rows[0].draws}
    values = {name: _values(rows, draws, value) for name, value in metrics.items()}
    hindsight = {ORACLE, CONTEXT_ORACLE, ANY, *(best_of_name(source, n) for source, n in draws.items())}
    means = _Means(seed)
    results["systems"] = {
        name: {
            **means.of({metric: of_metric[name] for metric, of_metric in values.items()}),
            "n": len(kept),
            "hindsight": name in hindsight,
        }
        for name in values[headline]
    }
    references = [name for name in (ORIGINAL, BASELINE) if name in values[headline]]
    results["gains"] = {
        name: {
            f"over_{reference}": means.of_one(headline, _minus(values[headline][name], values[headline][reference]))
            for reference in references
            if reference != name
        }
        for name in values[headline]
        if name != ORIGINAL
    }
    results["best_of"] = {name: _curve(rows, name, n, metrics[headline], headline, means) for name, n in draws.items()}
    if by_rank:
        results["where"] = _where(rows)
    means.finish()
    results["search"] = _search(rows)
    row_of = {place: row for row, place in enumerate(kept)}
    of_slices = {name: [row_of[i] for i in places if i in row_of] for name, places in slices.items()}
    results["slices"] = {
        name: _slice(values[headline], rows_of_slice, headline, references, seed)
        for name, rows_of_slice in of_slices.items()
        if rows_of_slice
    }
    return results


def best_of_name(source: str, n: int) -> str:
    return f"{source}: best of {n}"


def _values(rows: Sequence[Measured], draws: Mapping[str, int], value: Value) -> Values:
    """Return system → value of each sample: fixed rewrites, one draw, the best of n draws, the best of all."""
    values: Values = {name: [value(row.fixed[name]) for row in rows] for name in rows[0].fixed}
    for source, n in draws.items():
        of_draws = [[value(one) for one in row.draws[source]] for row in rows]
        values[f"{source}: one draw"] = [expected_best(one, 1) for one in of_draws]
        if n > 1:
            values[best_of_name(source, n)] = [expected_best(one, n) for one in of_draws]
    values[ANY] = [
        max(value(one) for one in (*row.fixed.values(), *(d for of in row.draws.values() for d in of))) for row in rows
    ]
    return values


class _Means:
    """Means whose intervals are computed all at once, with the same resamples, when `finish` is called."""

    def __init__(self, seed: int):
        self._seed = seed
        self._columns: list[Sequence[float]] = []
        self._places: list[tuple[dict[str, Any], str]] = []

    def of(self, by_metric: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """Return metric → mean, and `ci95`: metric → interval."""
        intervals: dict[str, Any] = {}
        for metric, values in by_metric.items():
            self._columns.append(values)
            self._places.append((intervals, metric))
        return {**{metric: sum(values) / len(values) for metric, values in by_metric.items()}, "ci95": intervals}

    def of_one(self, metric: str, values: Sequence[float]) -> dict[str, Any]:
        """Return the mean under `metric`, and `ci95`: its interval."""
        result: dict[str, Any] = {metric: sum(values) / len(values), "ci95": None}
        self._columns.append(values)
        self._places.append((result, "ci95"))
        return result

    def finish(self) -> None:
        """Fill in the intervals."""
        columns = list(zip(*self._columns, strict=True))
        for (target, key), interval in zip(self._places, bootstrap_means(columns, seed=self._seed), strict=True):
            target[key] = list(interval)


def _minus(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(a, b, strict=True)]


def _curve(rows: Sequence[Measured], source: str, n: int, value: Value, metric: str, means: _Means) -> dict[str, Any]:
    """Return the best of k draws for k up to `n`, and what the service's own score would choose among all draws."""
    of_draws = [[value(one) for one in row.draws[source]] for row in rows]
    curve = {}
    for k in steps_to(n):
        curve[str(k)] = means.of_one(metric, [expected_best(one, k) for one in of_draws])
    by_score = [chosen_by(v, [one.top1 for one in row.draws[source]]) for v, row in zip(of_draws, rows, strict=True)]
    return {
        "n": n,
        "curve": curve,
        "chosen_by_score": means.of_one(metric, by_score),
        "hindsight": means.of_one(metric, _minus([max(one) for one in of_draws], by_score)),
    }


def _where(rows: Sequence[Measured]) -> dict[str, int]:
    """Count the samples by what rewriting can do for them, over everything that was tried."""
    counts = dict.fromkeys(("first_already", "can_be_first", "can_rise", "no_better", "never_in_10"), 0)
    for row in rows:
        before = row.fixed[ORIGINAL].rank or float("inf")
        found = [*row.fixed.values(), *(draw for of_source in row.draws.values() for draw in of_source)]
        best = min(one.rank or float("inf") for one in found)
        name = (
            "first_already"
            if before == 1
            else "can_be_first"
            if best == 1
            else "never_in_10"
            if best > 10
            else "can_rise"
            if best < before
            else "no_better"
        )
        counts[name] += 1
    return counts


def _search(rows: Sequence[Measured]) -> dict[str, Any]:
    searches = [row.search for row in rows if row.search is not None]
    return {
        "searched": len(searches),
        "exhaustive": sum(search.exhaustive for search in searches),
        "cut_short": sum(search.cut_short for search in searches),
        "failed_questions": sum(search.failed for search in searches),
        "barred_by_gates": sum(len(search.barred) for search in searches),
        "rewrites_tried_mean": sum(row.asked for row in rows) / len(rows),
    }


def _slice(values: Values, places: Sequence[int], metric: str, references: Sequence[str], seed: int) -> dict[str, Any]:
    of_slice = {name: [column[i] for i in places] for name, column in values.items()}
    means = _Means(seed)
    systems = {name: means.of_one(metric, column) for name, column in of_slice.items()}
    gains = {reference: means.of_one(metric, _minus(of_slice[ANY], of_slice[reference])) for reference in references}
    means.finish()
    return {"n": len(places), "systems": systems, "gain_of_any_over": gains}
