"""verl calls `compute_score` once per finished rollout: `reward.custom_reward_function.path=pkg://reward.verl_reward`.

The trainer keeps no more than a flat dict of scalars per rollout, with one key set for every outcome
(`reward.engine.flat_fields`).
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from reward.engine import RewardEngine
from reward.records.sample import Sample
from reward.settings.recipe import parse_settings

if TYPE_CHECKING:
    from reward.engine_actor import SharedEngine


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any],
    settings: DictConfig | dict[str, Any],
    output_dir: str,
    **_: Any,
) -> dict[str, float | str]:
    """Score one decoded rollout of the sample in `extra_info`: verl's contract.

    A rewrite that finds the passage the baseline misses:

        >>> fields = await compute_score("fivedoctors", "鱼油 用法用量", "", row["extra_info"], rewriter, "outputs/rl")
        >>> round(fields["score"], 3), fields["policy_rank"], fields["baseline_rank"], fields["abstained"]
        (0.652, 1.0, 14.0, 0.0)

    Args:
        solution_str: the policy's completion, special tokens removed.
        extra_info: of the parquet row (`Sample.to_extra_info`), with the trainer's `min_global_steps`.
        settings: the recipe's `rewriter` node, handed in by `reward.custom_reward_function.reward_kwargs`.
        output_dir: of the run.

    Returns:
        `score` and the other fields of `flat_fields`. An abstention has score 0 and `abstained` 1: the sampler takes
        it out of the batch before it can train. (TRL says the same by returning `None`.)
    """
    # In synchronous mode the rollout's weights are those of the step before.
    step = int(extra_info.get("min_global_steps") or 0) + 1
    engine = _engine_of(_Node(settings), output_dir)
    return await engine.score(Sample.from_extra_info(extra_info), solution_str, step)


class _Node:
    """A settings node, equal to itself alone: verl hands in the very same object with every rollout, and resolving it
    each time costs more CPU than scoring."""

    def __init__(self, settings: DictConfig | dict[str, Any]):
        self.settings = settings

    def __hash__(self) -> int:
        return id(self.settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Node) and self.settings is other.settings


@lru_cache(maxsize=1)
def _engine_of(node: _Node, output_dir: str) -> RewardEngine | SharedEngine:
    settings = node.settings
    values: Any = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else settings
    is_shared = values["ledger"].get("shared") == "ray"
    return _open_engine(json.dumps(values, sort_keys=True), output_dir, is_shared)


@lru_cache(maxsize=1)
def _open_engine(settings: str, output_dir: str, is_shared: bool) -> RewardEngine | SharedEngine:
    """Return the one engine of these settings: equal nodes share it."""
    if is_shared:
        from reward.engine_actor import SharedEngine  # Ray is there only where a run shares its engine

        return SharedEngine(settings, output_dir)
    return RewardEngine(parse_settings(json.loads(settings), "rewriter"), Path(output_dir))
