"""verl calls `compute_score` once per finished rollout: `reward.custom_reward_function.path=pkg://reward.verl_reward`.

The trainer keeps no more than a flat dict of scalars per rollout, with one key set for every outcome
(`reward.engine.flat_fields`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reward.engine import RewardEngine
from reward.records.sample import Sample
from reward.settings.recipe import parse_settings

Score = Callable[[dict[str, Any], str, int], Awaitable[dict[str, float | str]]]
_last: tuple[Any, str, Score] | None = None


@lru_cache(maxsize=1)
def _engine(settings: str, output_dir: str) -> Score:
    engine = RewardEngine(parse_settings(json.loads(settings), "rewriter"), Path(output_dir))

    async def score(extra_info: dict[str, Any], completion: str, step: int) -> dict[str, float | str]:
        return await engine.score(Sample.from_extra_info(extra_info), completion, step)

    return score


@lru_cache(maxsize=1)
def _shared_engine(settings: str, output_dir: str) -> Score:
    from reward.engine_actor import shared_engine  # Ray is there only where a run shares its engine

    actor = shared_engine(settings, output_dir)

    async def score(extra_info: dict[str, Any], completion: str, step: int) -> dict[str, float | str]:
        fields: dict[str, float | str] = await actor.score.remote(extra_info["sample"], completion, step)
        return fields

    return score


def _score_function(settings: DictConfig | dict[str, Any], output_dir: str) -> Score:
    """The engine for these settings. verl hands in the very same object with every rollout: resolving it each time
    costs more CPU than scoring."""
    global _last
    if _last is not None and _last[0] is settings and _last[1] == output_dir:
        return _last[2]
    values: Any = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else settings
    text = json.dumps(values, sort_keys=True)
    score = (_shared_engine if values["ledger"].get("shared") == "ray" else _engine)(text, output_dir)
    _last = (settings, output_dir, score)
    return score


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
    # In synchronous mode the rollout's weights are those of the step before.
    step = int(extra_info.get("min_global_steps") or 0) + 1
    return await _score_function(settings, output_dir)(extra_info, solution_str, step)
