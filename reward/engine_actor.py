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
    """One process, one event loop, one ledger, whoever asks from wherever."""

    def __init__(self, settings: str, output_dir: str):
        self._engine = RewardEngine(parse_settings(json.loads(settings), "rewriter"), Path(output_dir))

    async def score(self, sample: str, completion: str, step: int) -> dict[str, float | str]:
        return await self._engine.score(Sample.model_validate_json(sample), completion, step)


def shared_engine(settings: str, output_dir: str) -> Any:
    """The run's actor; the first worker to ask starts it."""
    remote = ray.remote(num_cpus=0)(EngineActor)
    return remote.options(name=ACTOR_NAME, get_if_exists=True, max_concurrency=CONCURRENT_ROLLOUTS).remote(
        settings, output_dir
    )
