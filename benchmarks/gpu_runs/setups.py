"""What the check runs: recipes as they ship, on invented data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.reward_runs.traffic import make_sample
from data_prep.prompt import build_sft_messages
from reward.records.sample import Sample
from reward.settings.recipe import load_tenant

TENANT = "fivedoctors"
SFT_SAMPLES = 512


@dataclass(frozen=True)
class Setup:
    """One trained model.

    Args:
        name: printed.
        recipe: `sft`, `grpo` or `ppo`.
        trained: `language model` (the SFT trainer's, the actor) or `critic`.
        overrides: of the recipe.
        phase: of the memory plan, that the update is compared with.
    """

    name: str
    recipe: str
    trained: str
    overrides: tuple[str, ...]
    phase: str


_SFT_8B = ("model=qwen3_8b", "recipe.sft.batch=64")
_ALL_WEIGHTS = ("recipe.sft.lora_rank=0", "recipe.sft.weights=fp32", "recipe.sft.lr=1e-5")
# 32 rollouts an update: enough for several micro-batches, few enough for seconds.
_GRPO = ("recipe.rl.prompts_per_step=4", "recipe.rl.prompts_per_update=4")
_PPO = ("recipe.rl.prompts_per_step=32", "recipe.rl.prompts_per_update=32", "recipe.machine.offload_critic=false")
_MODEL, _CRITIC = "language model", "critic"
SETUPS = (
    Setup("SFT LoRA 8B", "sft", _MODEL, _SFT_8B, "update"),
    Setup("SFT LoRA 8B, a sample at once", "sft", _MODEL, (*_SFT_8B, "data.use_dynamic_bsz=false"), "update"),
    Setup("GRPO LoRA 8B", "grpo", _MODEL, ("model=qwen3_8b", "train=lora", *_GRPO), "actor update"),
    Setup("GRPO all weights 4B", "grpo", _MODEL, ("model=qwen3_4b", *_GRPO), "actor update"),
    Setup("PPO critic all weights 4B", "ppo", _CRITIC, ("model=qwen3_4b", *_PPO), "critic update"),
    Setup("SFT all weights 4B", "sft", _MODEL, ("model=qwen3_4b", "recipe.sft.batch=64", *_ALL_WEIGHTS), "update"),
)


def invented_samples(number: int) -> list[Sample]:
    """Invent labelled samples; a prompt and its rewrite are about 160 tokens of one character each."""
    samples = [make_sample(index, index) for index in range(number)]
    return [sample.model_copy(update={"rewritten_query": sample.candidates.baseline}) for sample in samples]


def write_sft_data(path: Path, samples: Sequence[Sample]) -> None:
    """Write the trainer's parquet, with the prompts of the real data set."""
    tenant = load_tenant(TENANT)
    pq.write_table(pa.table({"messages": [build_sft_messages(sample, tenant) for sample in samples]}), path)
