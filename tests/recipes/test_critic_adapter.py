"""A critic takes adapters as verl makes them (`recipes.critic_adapter`)."""

from omegaconf import OmegaConf
from peft import LoraConfig, TaskType, get_peft_model
from transformers import Qwen3ForTokenClassification

import recipes.critic_adapter  # noqa: F401
from recipes.compose import CONFIG_DIR, compose_recipe
from tests.support.tiny_models import qwen3_config


def test_a_critic_takes_adapters_of_a_causal_language_model_and_learns_its_head():
    critic = Qwen3ForTokenClassification(qwen3_config(32, num_labels=1))
    adapted = get_peft_model(critic, LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, target_modules="all-linear"))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("score.lora_A" in name for name in trained) and any("q_proj.lora_B" in name for name in trained)


def test_every_machine_that_trains_loads_it():
    for path in (CONFIG_DIR / "machine").glob("*.yaml"):
        machine = compose_recipe("medical_ppo", [f"machine={path.stem}"]).recipe.machine
        assert "recipes.critic_adapter" in OmegaConf.to_container(machine.env)["VERL_USE_EXTERNAL_MODULES"].split(",")
