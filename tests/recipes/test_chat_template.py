"""The 8B recipes' chat template through verl's own SFT data set: what is learnt is the rewrite, in rollout's format."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

from data_prep.prompt import build_messages, build_sft_messages
from examples.make_tiny_model import CHAT_TEMPLATE, make_tokenizer
from recipes.compose import compose_recipe
from reward.records.sample import Context, Metadata, Sample
from reward.settings.recipe import TenantSettings

REWRITE = "鱼油 用法用量"
TENANT = TenantSettings(tenant_id="t", short_id="t", system_prompt="系统")
SAMPLE = Sample(
    sample_id="s",
    original_query="鱼油咋吃",
    rewritten_query=REWRITE,
    context=Context(history_context="用户: 你好\n助手: 您好"),
    metadata=Metadata(tenant_id="t"),
)


def tokenizer_with(template: str):
    tokenizer = make_tokenizer(["鱼油咋吃用法量你好您system user assistant think 请改写"], [])
    tokenizer.chat_template = template
    return tokenizer


def item(tmp_path, tokenizer, config):
    path = tmp_path / "sft.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": build_sft_messages(SAMPLE, TENANT)}]), path)
    return MultiTurnSFTDataset(str(path), tokenizer, config.data)[0]


@pytest.mark.parametrize("overrides", [[], ["machine=cpu", "model=tiny"]], ids=["qwen3_8b", "tiny"])
def test_the_loss_falls_on_the_rewrite_and_nothing_else(tmp_path, overrides):
    config = compose_recipe("sft", ["tenant=fivedoctors", *overrides])
    tokenizer = tokenizer_with(config.model.custom_chat_template or CHAT_TEMPLATE)
    row = item(tmp_path, tokenizer, config)
    learnt = row["input_ids"][row["loss_mask"].bool()]
    assert tokenizer.decode(learnt).strip() == f"{REWRITE}<|im_end|>"

    # What precedes it is, token for token, the prompt that rollouts and evaluation start from.
    prompt = tokenizer.apply_chat_template(
        build_messages(SAMPLE, TENANT),
        add_generation_prompt=True,
        return_dict=False,
        **OmegaConf.to_container(config.data.apply_chat_template_kwargs),
    )
    before = row["input_ids"][: row["loss_mask"].bool().nonzero()[0].item()]
    assert before.tolist() == prompt


def test_rollouts_use_the_same_template():
    sft, rl = (compose_recipe(name, ["tenant=fivedoctors"]) for name in ("sft", "grpo"))
    assert rl.actor_rollout_ref.model.custom_chat_template == sft.model.custom_chat_template
    assert "<think>" in sft.model.custom_chat_template
