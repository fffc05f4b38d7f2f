"""The scores of a retrieval service: brought to [0, 1], and where they come from. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from reward.records.sample import Hit

Scale = Literal["unit", "percent", "logit"]
TOLERANCE = 1e-6  # of a share: what floats add to a 1
FUSED, UNNAMED = "fused", "reranker"  # origins: the engine's `score` alone; a reranker that the service does not name
_HIGHEST = {"unit": 1.0, "percent": 100.0}
_SHOWN = {"unit": "[0, 1]", "percent": "[0, 100]"}


def to_unit(score: float, scale: Scale) -> float:
    """Return a `reranker_score` of that scale as a share in [0, 1].

    Raises:
        ValueError: it lies outside the scale, or is not finite.
    """
    if not math.isfinite(score):
        raise ValueError(f"score {score} is not finite")
    if scale == "logit":
        # The sigmoid, written so that neither side overflows.
        return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))
    share = score / _HIGHEST[scale]
    if not -TOLERANCE <= share <= 1 + TOLERANCE:
        raise ValueError(f"score {score:g} outside {_SHOWN[scale]}")
    return min(max(share, 0.0), 1.0)


def origin_of(hits: Sequence[Hit], reranker: str) -> str | None:
    """Return what gave the hits their scores: the reranker's name, `FUSED`, or "" where no hit has a score. `None`
    where they are mixed: some reranked and others not, or some scored and others not.

    Args:
        reranker: its name as the service reports it, "" where it does not.
    """
    origins = {
        (reranker or UNNAMED) if hit.reranker_score is not None else FUSED if hit.score is not None else ""
        for hit in hits
    }
    return None if len(origins) > 1 else next(iter(origins), "")


def reranker_failure(data: Mapping[str, Any]) -> str | None:
    """Return why a retrieval went without its reranker or its embedder, as this project's service says it in
    `channels`; `None` where it did not, and for a service that does not say."""
    channels = data.get("channels")
    if not isinstance(channels, Mapping):
        return None
    states = ((name, channels.get(name)) for name in ("rerank", "dense", "keyword"))
    failed = [f"{name}: {state}" for name, state in states if isinstance(state, str) and state.startswith("fell back")]
    return "; ".join(failed) or None
