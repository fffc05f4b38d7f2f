"""The rows of a comparison, and what its answers say of the scorer, the gates and the versions."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any

from evaluation.retrieval import Found, RetrievalResult
from evaluation.systems import Rewrite
from reward.records.sample import Sample
from reward.rewrite.gates import check_gates
from reward.settings.recipe import RewardSettings, TenantSettings

PACKAGES = ("ir-measures", "numpy", "scipy", "torch", "transformers", "vllm")


def versions() -> dict[str, str]:
    """Return the versions of what made the metrics; a package that is not installed took no part."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def scorers_of(answers: Mapping[str, Sequence[RetrievalResult]]) -> list[str]:
    """Return the rerankers that the service named in its answers."""
    named = {answer.scorer for system in answers.values() for answer in system if isinstance(answer, Found)}
    return sorted(named - {""})


def origins_of(answers: Mapping[str, Sequence[RetrievalResult]]) -> set[str]:
    """Return what gave the hits their scores."""
    origins = {answer.origin for system in answers.values() for answer in system if isinstance(answer, Found)}
    return origins - {""}


def failed_gates(samples: Sequence[Sample], texts: Sequence[str], tenant: TenantSettings) -> list[str | None]:
    """Return the reward's gate that each rewrite fails (markup, another language, a number or group of people lost or
    invented, …), None where it fails none."""
    settings = RewardSettings()
    results = []
    for sample, text in zip(samples, texts, strict=True):
        gated = check_gates(
            sample, text, gates=settings.gates, cap=settings.length.cap, lexicon=tenant.lexicon, floor=-1.0
        )
        results.append(gated.reason.value if gated else None)
    return results


def gate_metrics(gated: Mapping[str, Sequence[str | None]]) -> dict[str, Any]:
    """Compute `gated` of `metrics.json`: system -> share of rewrites that fail a gate, and how many fail which."""
    return {
        name: {
            "share": sum(gate is not None for gate in gates) / len(gates),
            "n": len(gates),
            "reasons": dict(Counter(gate for gate in gates if gate).most_common()),
        }
        for name, gates in gated.items()
    }


def rows(
    samples: Sequence[Sample],
    rewrites: Mapping[str, Sequence[Rewrite]],
    answers: Mapping[str, Sequence[RetrievalResult]],
    failures: Sequence[str | None],
    gated: Mapping[str, Mapping[int, str | None]],
    judged: Mapping[int, dict[str, Any]],
) -> list[str]:
    """Return the lines of `rewrites.jsonl`: a sample each, with every system's rewrite and what it found.

    Args:
        gated: system -> place of the sample -> the gate that its rewrite fails.
        judged: place of the sample -> what the judge said of it.
    """
    lines = []
    for index, (sample, failure) in enumerate(zip(samples, failures, strict=True)):
        systems: dict[str, Any] = {}
        for name, texts in rewrites.items():
            answer, text = answers[name][index], texts[index]
            systems[name] = {"rewrite": text if isinstance(text, str) else None}
            if isinstance(answer, Found):
                systems[name] |= {"rank": answer.rank, "top1": answer.top1}
            if gate := gated.get(name, {}).get(index):
                systems[name]["gate"] = gate
        row = {
            "sample_id": sample.sample_id,
            "query": sample.original_query,
            "context": sample.context.text,
            "slices": sample.metadata.slices,
            "abstained": failure,
            "systems": systems,
            **({"judge": judged[index]} if index in judged else {}),
        }
        lines.append(json.dumps(row, ensure_ascii=False))
    return lines
