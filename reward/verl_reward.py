"""verl calls `compute_score` once per finished rollout: `reward.custom_reward_function.path=pkg://reward.verl_reward`.

The trainer keeps no more than a flat dict of scalars per rollout, with one key set for every outcome
(`reward.engine.flat_fields`).
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reward.engine import RewardEngine
from reward.records import Sample
from reward.settings import parse_settings


@lru_cache(maxsize=1)
def _engine(settings: str, output_dir: str) -> RewardEngine:
    return RewardEngine(parse_settings(json.loads(settings), "rewriter"), Path(output_dir))


@lru_cache(maxsize=1)
def _actor(settings: str, output_dir: str) -> Any:
    from reward.engine_actor import shared_engine  # Ray is there only where a run shares its engine

    return shared_engine(settings, output_dir)


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any],
    settings: DictConfig | dict[str, Any],
    output_dir: str,
    **_: Any,
) -> dict[str, float | str]:
    """verl's contract: score one decoded rollout of the sample in `extra_info`.

    Args:
        settings: the recipe's `rewriter` node, handed in by `reward.custom_reward_function.reward_kwargs`.
        output_dir: of the run.

    Returns:
        `score` and the other fields of `flat_fields`. An abstention has score 0 and `abstained` 1: the sampler takes
        it out of the batch before it can train.
    """
    values: Any = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else settings
    text = json.dumps(values, sort_keys=True)
    # In synchronous mode the rollout's weights are those of the step before.
    step = int(extra_info.get("min_global_steps") or 0) + 1
    if values["ledger"].get("shared") == "ray":
        return await _actor(text, output_dir).score.remote(extra_info["sample"], solution_str, step)
    return await _engine(text, output_dir).score(Sample.from_extra_info(extra_info), solution_str, step)
