"""The engine as one named Ray actor, for runs whose reward workers are several (`ledger.shared: ray`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ray

from reward.engine import RewardEngine
from reward.records.sample import Sample
from reward.settings.recipe import parse_settings

ACTOR_NAME = "reward_engine"
CONCURRENT_ROLLOUTS = 8192  # an asyncio actor: waiting costs it nothing


class EngineActor:
    """One process, one event loop, one ledger for every worker on every node."""

    def __init__(self, settings: str, output_dir: str):
        self._engine = RewardEngine(parse_settings(json.loads(settings), "rewriter"), Path(output_dir))

    async def score(self, sample: str, completion: str, step: int) -> dict[str, float | str]:
        return await self._engine.score(Sample.model_validate_json(sample), completion, step)


class SharedEngine:
    """`RewardEngine.score` by way of the run's actor; the first worker to ask starts it.

    Args:
        settings: the recipe's `rewriter` node as JSON.
        output_dir: of the run.
    """

    def __init__(self, settings: str, output_dir: str):
        remote = ray.remote(num_cpus=0)(EngineActor)
        named = remote.options(name=ACTOR_NAME, get_if_exists=True, max_concurrency=CONCURRENT_ROLLOUTS)
        self._actor: Any = named.remote(settings, output_dir)

    async def score(self, sample: Sample, completion: str, step: int) -> dict[str, float | str]:
        fields: dict[str, float | str] = await self._actor.score.remote(sample.to_json(), completion, step)
        return fields
