"""One of verl's reward workers, in a process of its own: its event loop, its reward manager, its share of rollouts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import uvloop
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager

from benchmarks.reward_runs.traffic import Arrival


class _CodePoints:
    """Token ids are the characters' code points."""

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool = True) -> str:
        return "".join(map(chr, ids.tolist()))


def work(pipe: Connection, config: dict[str, Any], share: Sequence[Arrival]) -> None:
    """Say `ready`, be told when to start (monotonic clock), say `scored` after each rollout and `done` at the end."""
    torch.set_num_threads(1)
    uvloop.run(_work_in_loop(pipe, OmegaConf.create(config), share))


async def _work_in_loop(pipe: Connection, config: DictConfig, share: Sequence[Arrival]) -> None:
    manager = load_reward_manager(config, _CodePoints())
    rollouts = [_data_proto(arrival) for arrival in share]
    pipe.send("ready")
    start = pipe.recv()

    async def score(arrival: Arrival, data: DataProto) -> None:
        await asyncio.sleep(start + arrival.seconds - time.monotonic())
        result = await manager.run_single(data)
        if "error" in result["reward_extra_info"] or "timeout" in result["reward_extra_info"]:
            raise RuntimeError(str(result))
        pipe.send("scored")

    await asyncio.gather(*(score(arrival, data) for arrival, data in zip(share, rollouts, strict=True)))
    pipe.send("done")


def _data_proto(arrival: Arrival) -> DataProto:
    """Return one rollout as verl's agent loop hands it to a reward worker."""
    responses = torch.tensor([[ord(character) for character in arrival.completion]])
    batch = TensorDict({"responses": responses, "attention_mask": torch.ones_like(responses)}, batch_size=1)
    fields: dict[str, Any] = {
        "data_source": "bench",
        "reward_model": {"style": "rule", "ground_truth": ""},
        "extra_info": arrival.sample.to_extra_info(arrival.prompt),
    }
    arrays = {}
    for name, value in fields.items():
        arrays[name] = np.empty(1, dtype=object)
        arrays[name][0] = value
    return DataProto(batch=batch, non_tensor_batch=arrays)
