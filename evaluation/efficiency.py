"""Latency, tokens and cost of the systems, each measured where it can be and null where it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from reward.records.call import ServiceFailure
from reward.records.sample import Candidates, Sample
from reward.services.baseline_client import BaselineClient
from reward.settings.recipe import TenantSettings

LATENCY_REQUESTS = 50  # single requests, one after another: batches say nothing of what a caller waits for


@dataclass(frozen=True)
class Use:
    """What a system's rewrites took, as far as it is known.

    Args:
        seconds: of single requests.
        measured_as: what a second was measured on.
        usd_per_1000: US dollars for 1000 rewrites.
    """

    seconds: Sequence[float] = ()
    measured_as: str = ""
    input_tokens: Sequence[float] = ()
    output_tokens: Sequence[float] = ()
    usd_per_1000: float | None = None
    missing: list[str] = field(default_factory=list)


def efficiency(uses: dict[str, Use]) -> dict[str, Any]:
    """Compute `latency_ms`, `tokens` and `cost_per_1000`: system -> metrics, None where nothing was measured."""
    return {
        "latency_ms": {name: latency(use.seconds) for name, use in uses.items()},
        "tokens": {
            name: {"input_mean": fmean(use.input_tokens), "output_mean": fmean(use.output_tokens)}
            if use.input_tokens
            else None
            for name, use in uses.items()
        },
        "cost_per_1000": {
            name: None if use.usd_per_1000 is None else {"usd": use.usd_per_1000} for name, use in uses.items()
        },
    }


def latency(seconds: Sequence[float]) -> dict[str, float | int] | None:
    """Compute p50 and p95 in milliseconds, and how many requests they are of."""
    if not seconds:
        return None
    p50, p95 = np.percentile(np.asarray(seconds) * 1000, [50, 95])
    return {"p50": float(p50), "p95": float(p95), "n": len(seconds)}


def use_of_baseline(samples: Sequence[Sample], tenant: TenantSettings) -> Use:
    """Time the deployed rewriter: one live request after another, for the first samples. It reports no tokens."""
    missing = ["baseline: tokens and cost are not measured: the service reports none"]
    if not tenant.baseline.url:
        return Use(missing=[*missing, "baseline: latency is not measured: the tenant names no baseline.url"])
    # Without its recorded rewrite a sample is asked for; a retry would hide how long the first answer took.
    asked = [sample.model_copy(update={"candidates": Candidates()}) for sample in samples[:LATENCY_REQUESTS]]
    settings = tenant.baseline.model_copy(update={"attempts": 1})

    async def time_all() -> tuple[list[float], list[ServiceFailure]]:
        client = BaselineClient(settings, tenant.tenant_id)
        seconds: list[float] = []
        failures: list[ServiceFailure] = []
        try:
            for sample in asked:
                rewrite, trace = await client.rewrite(sample)
                if isinstance(rewrite, ServiceFailure):
                    failures.append(rewrite)
                    if len(failures) == 3 and not seconds:  # nobody is there
                        break
                else:
                    seconds.append(trace.seconds)
        finally:
            await client.aclose()
        return seconds, failures

    seconds, failures = asyncio.run(time_all())
    if failures:
        missing.append(
            f"baseline: {len(failures)} of {len(seconds) + len(failures)} timed requests failed, first with: "
            f"{failures[0].reason}"
        )
    return Use(seconds, "live requests to the baseline service, one at a time", missing=missing)


def use_of_model(
    name: str,
    seconds: Sequence[float],
    input_tokens: Sequence[int],
    output_tokens: Sequence[int],
    batch_seconds: float,
    usd_per_hour: float | None,
) -> Use:
    """Return what a model's rewrites took in vLLM's offline engine on this machine.

    Args:
        usd_per_hour: of this machine. Cost is that of full load: what a batch of all samples took.
    """
    cost, missing = None, []
    if usd_per_hour is None:
        missing.append(f"{name}: cost is not known: --usd-per-hour, the price of this machine, is not given")
    else:
        cost = usd_per_hour / 3600 * batch_seconds / len(input_tokens) * 1000
    measured_as = "vLLM's engine on this machine, one request at a time, without HTTP"
    return Use(seconds, measured_as, input_tokens, output_tokens, cost, missing)
