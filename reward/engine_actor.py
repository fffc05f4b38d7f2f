"""The engine as one named Ray actor, for runs whose reward workers are several (`ledger.shared: ray`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from reward.engine import RewardEngine
from reward.records.sample import Sample
from reward.settings.recipe import parse_settings

ACTOR_NAME = "reward_engine"
CONCURRENT_ROLLOUTS = 8192  # an asyncio actor: waiting costs it nothing
ANSWER_SECONDS = 30.0  # for an actor to say that it is there; one that is silent for longer is busy, not dead
# The head node offers a little of this. The ledger's file is opened on one machine, the same one after a resume.
ON_HEAD = {"node:__internal_head__": 0.001}


class EngineActor:
    """One process on the head node, one event loop, one ledger for every worker on every node."""

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
        remote = ray.remote(num_cpus=0, resources=ON_HEAD)(EngineActor)
        named = remote.options(name=ACTOR_NAME, get_if_exists=True, max_concurrency=CONCURRENT_ROLLOUTS)
        self._actor: Any = named.remote(settings, output_dir)

    async def score(self, sample: Sample, completion: str, step: int) -> dict[str, float | str]:
        fields: dict[str, float | str] = await self._actor.score.remote(sample.to_json(), completion, step)
        return fields


def are_alive(workers: Iterable[Any], *, is_shared: bool) -> bool:
    """Return whether none of the reward workers has died, and neither has the actor where they share one."""
    try:
        actors = [*workers, *([ray.get_actor(ACTOR_NAME)] if is_shared else [])]
        ray.get([actor.__ray_ready__.remote() for actor in actors], timeout=ANSWER_SECONDS)
    except (ValueError, RayActorError):  # get_actor knows no name of a dead one
        return False
    except GetTimeoutError:
        return True
    return True
