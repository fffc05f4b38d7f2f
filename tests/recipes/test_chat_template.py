"""The 8B recipes' chat template through verl's own SFT data set: what is learnt is the rewrite, in rollout's format."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer
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


@pytest.mark.parametrize(
    "overrides",
    [[], ["machine=cpu", "model=tiny"], ["machine=cpu", "model=smollm2_135m"]],
    ids=["qwen3_8b", "tiny", "smollm2_135m"],
)
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


def test_the_template_of_a_pretrained_model_is_its_own(tmp_path):
    """Needs the model's folder (examples.get_small_model) in SMALL_MODEL."""
    folder = os.environ.get("SMALL_MODEL")
    if not folder:
        pytest.skip("SMALL_MODEL names no model folder")
    config = compose_recipe("sft", ["tenant=fivedoctors", "machine=cpu", "model=smollm2_135m"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for messages, more in ((build_messages(SAMPLE, TENANT), True), (build_sft_messages(SAMPLE, TENANT), False)):
        own = tokenizer.apply_chat_template(messages, add_generation_prompt=more, tokenize=False)
        ours = tokenizer.apply_chat_template(
            messages, add_generation_prompt=more, tokenize=False, chat_template=config.model.custom_chat_template
        )
        assert own == ours
    tokenizer.chat_template = config.model.custom_chat_template
    row = item(tmp_path, tokenizer, config)
    assert tokenizer.decode(row["input_ids"][row["loss_mask"].bool()]).strip() == f"{REWRITE}<|im_end|>"


def test_rollouts_use_the_same_template():
    sft, rl = (compose_recipe(name, ["tenant=fivedoctors"]) for name in ("sft", "grpo"))
    assert rl.actor_rollout_ref.model.custom_chat_template == sft.model.custom_chat_template
    assert "<think>" in sft.model.custom_chat_template
