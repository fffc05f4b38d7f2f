"""The recipes of query expansion: their figures, the models they take, and what a dry run shows."""

import pytest
import yaml

from recipes.checks.prompts import Prompts, prompt_findings
from recipes.checks.settings import check_batches, check_precision, check_settings
from recipes.compose import compose_recipe
from recipes.launch import main
from recipes.model_facts import facts_of
from reward.expansion.prompt import TEMPLATE

TENANT = "tenant=fivedoctors"
CPU = ["machine=cpu", "model=tiny"]


def test_sft_keeps_the_published_figures():
    config = compose_recipe("expansion_sft", [TENANT])
    assert config.recipe.pretrained == "Qwen/Qwen3-1.7B"
    model = config.model
    assert (model.lora_rank, model.lora_alpha, model.target_modules) == (16, 32, "all-linear")
    assert (config.data.train_batch_size, config.data.micro_batch_size_per_gpu) == (16, 4)
    assert (config.trainer.total_epochs, config.optim.lr, config.optim.lr_scheduler_type) == (5, 2e-4, "cosine")
    assert config.trainer.n_gpus_per_node == 1 and config.recipe.machine.gpu_memory_gib == 23.6
    assert config.recipe.output_dir == "outputs/sft/fivedoctors_expansion"


def test_grpo_keeps_the_published_figures():
    config = compose_recipe("expansion_grpo", [TENANT])
    model, actor = config.actor_rollout_ref.model, config.actor_rollout_ref.actor
    assert (model.lora_rank, model.lora_alpha, list(model.target_modules)) == (4, 8, ["q_proj", "v_proj"])
    assert (actor.optim.lr, actor.use_kl_loss, actor.kl_loss_coef) == (5e-7, True, 0.04)
    assert (config.actor_rollout_ref.rollout.n, config.trainer.total_training_steps) == (4, 200)
    assert config.recipe.start_from == "outputs/sft/fivedoctors_expansion/final"
    settings = check_settings("expansion_grpo", config)
    assert settings is not None and settings.task == "expansion" and settings.expansion.preset == "rules-v2"


def test_rloo_is_grpo_with_another_baseline():
    grpo, rloo = (compose_recipe(f"expansion_{name}", [TENANT]) for name in ("grpo", "rloo"))
    assert rloo.algorithm.adv_estimator == "rloo"
    rloo.algorithm.adv_estimator = "grpo"
    assert rloo == grpo


@pytest.mark.parametrize("recipe", ["expansion_sft", "expansion_grpo", "expansion_rloo"])
@pytest.mark.parametrize("overrides", [CPU, ["machine=cpu", "model=smollm2_135m"], ["model=qwen3_4b"]])
def test_other_models_and_machines_compose(recipe, overrides):
    full = ["train=full"] if recipe != "expansion_sft" and "machine=cpu" in overrides else []
    config = compose_recipe(recipe, [TENANT, *overrides, *full])
    check_settings(recipe, config)
    check_batches(config)
    check_precision(config)
    if recipe != "expansion_sft":
        assert config.data.max_response_length == 256  # eight lines, whatever the model


def test_the_model_of_the_recipes_is_known():
    facts = facts_of("outputs/none", "Qwen/Qwen3-1.7B")
    assert facts is not None and facts.parameters / 1e9 == pytest.approx(1.72, abs=0.01)


def test_prompts_need_no_baseline():
    prompts = Prompts([40, 50], 20, True, without_baseline=2)
    subjects = {finding.subject for finding in prompt_findings(compose_recipe("expansion_grpo", [TENANT]), prompts)}
    assert subjects == {"prompts"}
    assert "baseline" in {finding.subject for finding in prompt_findings(compose_recipe("grpo", [TENANT]), prompts)}


@pytest.mark.parametrize("recipe", ["expansion_grpo", "expansion_rloo", "grpo", "ppo", "expansion_sft"])
def test_a_dry_run_prints_the_recipe_and_its_reward_at_work(recipe, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([recipe, TENANT, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    shown = yaml.safe_load(printed)
    assert shown["recipe"]["output_dir"] and not list(tmp_path.iterdir())
    rewards = [float(line.split()[1]) for line in printed.splitlines() if line.startswith(("# +", "# -"))]
    if recipe == "expansion_sft":
        assert rewards == []
    else:
        assert len(rewards) >= 4 and rewards == sorted(rewards, reverse=True) and rewards[0] > 0 > rewards[-1]


def test_a_dry_run_of_an_impossible_recipe_says_why(capsys):
    assert main(["expansion_grpo", TENANT, "rewriter.expansion.preset=v9", "--dry-run"]) == 2
    assert "expansion.preset" in capsys.readouterr().err


def test_the_prompt_is_the_published_one():
    assert TEMPLATE == "/no_think Expand this search query: {query}"
