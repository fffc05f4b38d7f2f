"""verl calls `compute_score` once per finished rollout: `reward.custom_reward_function.path=pkg://reward.verl_reward`.

The trainer keeps no more than a flat dict of scalars per rollout, with one key set for every outcome.
`reward.num_workers: 1` keeps all rollouts in one process and one event loop, so that the service limits hold.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reward.records import Abstained, Gated, Parts, Sample, Scored
from reward.scorer import Scorer, Scoring
from reward.settings import parse_settings


@lru_cache(maxsize=1)
def _scorer(settings: str) -> Scorer:
    return Scorer(parse_settings(json.loads(settings), "rewriter"))


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any],
    settings: DictConfig | dict[str, Any],
    **_: Any,
) -> dict[str, float | str]:
    """verl's contract: score one decoded rollout of the sample in `extra_info`.

    Args:
        settings: the recipe's `rewriter` node, handed in by `reward.custom_reward_function.reward_kwargs`.

    Returns:
        `score` and the fields of `flat_fields`. An abstention has score 0 and `abstained` 1: the sampler takes it out
        of the batch before it can train.
    """
    values = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else settings
    # In synchronous mode the rollout's weights are those of the step before.
    step = int(extra_info.get("min_global_steps") or 0) + 1
    sample = Sample.from_extra_info(extra_info)
    scoring = await _scorer(json.dumps(values, sort_keys=True)).score(sample, solution_str, step)
    return flat_fields(scoring)


def flat_fields(scoring: Scoring) -> dict[str, float | str]:
    """The one key set that every rollout reports, whatever its outcome."""
    outcome = scoring.outcome
    parts = outcome.parts if isinstance(outcome, Scored) else Parts()
    term = parts.retrieval or 0.0
    return {
        "score": 0.0 if isinstance(outcome, Abstained) else outcome.reward,
        "abstained": float(isinstance(outcome, Abstained)),
        "gated": float(isinstance(outcome, Gated)),
        "reason": "" if isinstance(outcome, Scored) else outcome.reason.value,
        "detail": "" if isinstance(outcome, Scored) else outcome.detail,
        "win": float(term > 0),
        "loss": float(term < 0),
        "retrieval": term,
        "judge": parts.judge or 0.0,
        "length_penalty": parts.length_penalty,
        "bonus": parts.bonus,
        "shaping": parts.shaping,
        "weight_retrieval": parts.weight_retrieval,
        "weight_judge": parts.weight_judge,
        "policy_top1": parts.policy_top1 or 0.0,
        "baseline_top1": parts.baseline_top1 or 0.0,
        "policy_rank": float(parts.policy_rank or 0),
        "baseline_rank": float(parts.baseline_rank or 0),
        "lookups": float(scoring.lookups),
        "cache_hits": float(scoring.cache_hits),
    }
