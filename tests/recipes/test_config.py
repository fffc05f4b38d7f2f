"""Every recipe composes against the pinned verl, for every machine and model, and sets no key that verl ignores."""

import pytest
from omegaconf import OmegaConf

from recipes.preflight import (
    CONFIG_DIR,
    IGNORED_KEYS,
    check_batches,
    check_loggers,
    check_settings,
    compose_recipe,
    main,
    shell_assignments,
)
from reward.records.files import BadInput
from reward.settings.recipe import load_tenant

RECIPES = sorted(path.stem for path in CONFIG_DIR.glob("*_*.yaml"))
CPU = ["machine=cpu", "model=tiny"]


@pytest.mark.parametrize("overrides", [[], CPU], ids=["gpu4", "cpu"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_composes(recipe, overrides):
    config = compose_recipe(recipe, overrides)
    settings = check_settings(recipe, config)
    assert config.rewriter.tenant.tenant_id == recipe.rsplit("_", 1)[0]
    assert (settings is None) == recipe.endswith("_sft")  # distillation has a tenant and no reward
    assert config.trainer.device == ("cpu" if overrides else "cuda")
    # verl leaves the rollout engine of its own reward model open while that model is off.
    assert OmegaConf.missing_keys(config) <= {"reward.reward_model.rollout.name"}
    if not recipe.endswith("_sft"):
        assert config.reward.custom_reward_function.path == "pkg://reward.verl_reward"
        assert config.trainer.v1.sampler.custom_sampler.name == "RewardReplayBuffer"


@pytest.mark.parametrize("recipe", RECIPES)
def test_batches_divide_on_every_machine(recipe):
    for overrides in ([], CPU):
        check_batches(compose_recipe(recipe, overrides))


def test_batches_that_do_not_divide_are_named():
    for wrong in ("recipe.rl.micro_batch=24", "recipe.rl.prompts_per_update=7"):
        with pytest.raises(BadInput, match=r"recipe\.rl\."):
            check_batches(compose_recipe("fivedoctors_grpo", [*CPU, wrong]))
    with pytest.raises(BadInput, match=r"recipe\.sft\.micro_batch"):
        check_batches(compose_recipe("fivedoctors_sft", [*CPU, "recipe.sft.batch=16"]))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_its_script(recipe):
    script = CONFIG_DIR.parent / f"{recipe}.sh"
    assert f'run.sh" {recipe} "$@"' in script.read_text(encoding="utf-8")


def test_swapping_the_machine_leaves_data_reward_algorithm_and_tenant_alone():
    gpu, cpu = (compose_recipe("fivedoctors_ppo", o) for o in ([], ["machine=cpu"]))
    for key in ("rewriter", "algorithm", "data.train_files", "recipe.rl", "actor_rollout_ref.actor.clip_ratio"):
        assert OmegaConf.select(gpu, key) == OmegaConf.select(cpu, key), key
    assert gpu.actor_rollout_ref.rollout.dtype != cpu.actor_rollout_ref.rollout.dtype


def test_ppo_keeps_the_users_figures():
    config = compose_recipe("fivedoctors_ppo", [])
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.optim.lr, config.critic.optim.lr) == (1e-6, 1e-5)
    assert (actor.ppo_epochs, actor.clip_ratio, actor.optim.clip_grad, actor.entropy_coeff) == (4, 0.2, 0.5, 0.01)
    assert (config.algorithm.adv_estimator, config.algorithm.gamma, config.algorithm.lam) == ("gae", 0.99, 0.95)
    assert (rollout.temperature, rollout.top_p, rollout.response_length, rollout.prompt_length) == (0.7, 0.9, 200, 1024)
    assert (config.data.train_batch_size, config.trainer.total_epochs, config.trainer.n_gpus_per_node) == (16, 10, 4)
    assert config.trainer.default_local_dir == "outputs/rl/fivedoctors"


def test_checkpoints_every_second_epoch_become_steps():
    config = compose_recipe("fivedoctors_ppo", [])
    assert "computed=(trainer.save_freq=100 trainer.test_freq=100)" in shell_assignments(
        config, 800, {}, finished=False
    )


@pytest.mark.parametrize("key", IGNORED_KEYS)
def test_a_key_that_verl_ignores_is_an_error(key):
    config = compose_recipe("fivedoctors_grpo", [])
    OmegaConf.update(config, f"{key}.path", "somewhere.py", force_add=True)
    with pytest.raises(BadInput, match=key):
        check_settings("fivedoctors_grpo", config)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["rewriter.reward.formula=v3"], ["rewriter", "reward.formula"]),
        (["+rewriter.reward.wieght_judge=0.4"], ["rewriter", "wieght_judge"]),
        (["judge=gpt5", "rewriter.reward.formula=v1", "rewriter.judge.mode=pairwise"], ["pairwise", "v1"]),
        (["judge=gpt6"], ["gpt6"]),
        (["rewriter.ledger.run.cny=-1"], ["ledger.run.cny"]),
        (["rewriter.reward.length.target=900"], ["rewriter", "reward.length", "900"]),
        (["+rewriter.tenant.rag.timeout=-1"], ["tenant.rag.timeout"]),
        (["tenant=nobody"], ["nobody"]),
        (["data.no_such_key=1"], ["data.no_such_key"]),
    ],
)
def test_a_wrong_setting_costs_one_line(overrides, words, capsys):
    assert main(["--config-name", "fivedoctors_grpo", *CPU, *overrides]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.strip().splitlines()) == 1
    assert all(word in err for word in words), err


def test_unknown_recipe_and_missing_data(tmp_path, capsys):
    with pytest.raises(BadInput, match=r"known recipes: .*fivedoctors_ppo"):
        compose_recipe("fivedoctor_ppo", [])
    assert main(["--config-name", "fivedoctors_sft", f"recipe.data_dir={tmp_path}"]) == 2
    assert str(tmp_path / "sft_train.parquet") in capsys.readouterr().err


def test_a_data_file_that_is_none_costs_one_line(tmp_path, capsys):
    for name in ("rl_train.parquet", "rl_val.parquet"):
        (tmp_path / name).write_bytes(b"no parquet")
    assert main(["--config-name", "fivedoctors_grpo", *CPU, f"recipe.data_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "rl_train.parquet" in error


def test_wandb_without_a_login_is_said_before_the_start(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config = compose_recipe("fivedoctors_ppo", [])
    with pytest.raises(BadInput, match="WANDB_API_KEY"):
        check_loggers(config)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_loggers(config)


def test_tenants_load_and_hold_no_secret():
    for path in (CONFIG_DIR / "tenant").glob("*.yaml"):
        assert load_tenant(path.stem).tenant_id == path.stem
        assert "sk-" not in path.read_text(encoding="utf-8")
