"""Every recipe composes against the pinned verl, for every tenant, machine and model, and sets no key verl ignores."""

import re

import pytest
import yaml
from omegaconf import OmegaConf

from recipes.checks.settings import (
    IGNORED_KEYS,
    check_batches,
    check_frozen_layers,
    check_precision,
    check_settings,
)
from recipes.compose import CONFIG_DIR, RECIPES, compose_recipe, typed_defaults
from recipes.model_facts import KNOWN_MODELS, facts_of
from recipes.preflight import check_loggers, main
from reward.records.files import BadInput
from reward.settings.recipe import JudgeSettings, RewriterSettings, TenantSettings, load_judge, load_tenant

TENANTS = ("fivedoctors", "chengla", "zlkt")
TENANT = "tenant=fivedoctors"
REWRITING = ("grpo", "ppo", "rloo", "sft")
MEDICAL = tuple(f"medical_{name}" for name in REWRITING)
CPU = ["machine=cpu", "model=tiny"]


@pytest.mark.parametrize(
    ("tenant", "overrides"),
    [*((tenant, []) for tenant in TENANTS), ("fivedoctors", CPU)],
    ids=[*TENANTS, "fivedoctors_cpu"],
)
@pytest.mark.parametrize("recipe", REWRITING)
def test_composes(recipe, tenant, overrides):
    config = compose_recipe(recipe, [f"tenant={tenant}", *overrides])
    settings = check_settings(recipe, config)
    check_batches(config)
    check_precision(config)
    assert config.rewriter.tenant.tenant_id == tenant
    assert (settings is None) == recipe.endswith("sft")  # distillation has a tenant and no reward
    assert config.trainer.device == ("cpu" if overrides else "cuda")
    # verl leaves the rollout engine of its own reward model open while that model is off.
    assert OmegaConf.missing_keys(config) <= {"reward.reward_model.rollout.name"}
    if settings is not None:
        assert config.reward.custom_reward_function.path == "pkg://reward.verl_reward"
        assert config.trainer.v1.sampler.custom_sampler.name == "RewardReplayBuffer"


def test_the_recipes_are_four_and_every_tenant_has_a_script_of_each():
    # Those of query expansion and of the medical assistant take their tenant on the command line, or have one.
    assert set(REWRITING) < set(RECIPES)
    for recipe in REWRITING:
        for tenant in TENANTS:
            script = CONFIG_DIR.parent / f"{tenant}_{recipe}.sh"
            assert f'run.sh" {recipe} tenant={tenant} "$@"' in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("overrides", [[], CPU, ["machine=gpu1_24gb", "model=qwen3_4b"], ["machine=gpu1_16gb"]])
@pytest.mark.parametrize("recipe", MEDICAL)
def test_the_medical_recipes_compose(recipe, overrides):
    lengths = ["recipe.machine.tokens_per_gpu=4096"] if "machine=cpu" not in overrides else []
    config = compose_recipe(recipe, [*overrides, *lengths])
    settings = check_settings(recipe, config)
    check_batches(config)
    check_precision(config)
    assert config.rewriter.tenant.tenant_id == "medical" and "<think>" not in config.model.custom_chat_template
    script = (CONFIG_DIR.parent / f"{recipe}.sh").read_text(encoding="utf-8")
    assert f'run.sh" {recipe} "$@"' in script
    if settings is not None:
        assert (settings.task, settings.teacher, config.recipe.rl.max_new_tokens) == ("medical", None, 1024)
        assert config.actor_rollout_ref.model.lora_rank == 64 and config.algorithm.adv_estimator in (
            "gae",
            "grpo",
            "rloo",
        )
        assert config.actor_rollout_ref.model.custom_chat_template == config.model.custom_chat_template


def test_the_medical_ppo_holds_its_kl_at_a_target_and_discounts_nothing():
    algorithm = compose_recipe("medical_ppo", []).algorithm
    assert algorithm.use_kl_in_reward and (algorithm.kl_ctrl.type, algorithm.gamma) == ("adaptive", 1.0)
    assert compose_recipe("ppo", [TENANT]).algorithm.kl_ctrl.type == "fixed"


@pytest.mark.parametrize("profile", ["deepseek_v3", "deepseek_r1", "self_hosted"])
def test_every_teacher_is_a_choice_of_the_medical_recipes(profile):
    settings = check_settings("medical_ppo", compose_recipe("medical_ppo", [f"teacher={profile}"]))
    assert settings is not None and settings.teacher is not None and settings.teacher.template == "v1"
    assert (settings.teacher.temperature is None) == (profile == "deepseek_r1")
    with pytest.raises(BadInput, match="the task rewrite asks none"):
        check_settings("grpo", compose_recipe("grpo", [TENANT, f"teacher={profile}"]))


def test_batches_that_do_not_divide_are_named():
    for wrong in ("recipe.rl.micro_batch=24", "recipe.rl.prompts_per_update=7"):
        with pytest.raises(BadInput, match=r"recipe\.rl\."):
            check_batches(compose_recipe("grpo", [TENANT, *CPU, wrong]))
    with pytest.raises(BadInput, match=r"recipe\.sft\.micro_batch"):
        check_batches(compose_recipe("sft", [TENANT, *CPU, "recipe.sft.batch=16"]))
    for recipe, longest in (("sft", 2048), ("grpo", 1280)):
        check_batches(compose_recipe(recipe, [TENANT, f"recipe.machine.tokens_per_gpu={longest}"]))
        with pytest.raises(BadInput, match=rf"tokens_per_gpu: 1024 holds no sample of {longest} tokens"):
            check_batches(compose_recipe(recipe, [TENANT, "recipe.machine.tokens_per_gpu=1024"]))


def test_every_update_keeps_to_the_machines_tokens():
    limit = "recipe.machine.tokens_per_gpu=4096"
    config = compose_recipe("ppo", [TENANT, limit])
    assert config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu == 4096
    # verl's trainer overwrites the critic's limit for updates with the one for values: 32768 where it is not set.
    assert config.critic.ppo_infer_max_token_len_per_gpu == 4096
    data = compose_recipe("sft", [TENANT, limit]).data
    assert data.use_dynamic_bsz and data.max_token_len_per_gpu == 4096


def test_the_frozen_base_of_lora_is_bf16_and_weights_that_train_are_not():
    assert compose_recipe("sft", [TENANT]).engine.model_dtype == "bf16"
    assert compose_recipe("sft", [TENANT, *CPU]).engine.model_dtype == "fp32"
    with pytest.raises(BadInput, match=r"recipe\.sft\.weights"):
        check_precision(compose_recipe("sft", [TENANT, "recipe.sft.lora_rank=0"]))
    with pytest.raises(BadInput, match=r"recipe\.rl\.weights"):
        check_precision(compose_recipe("grpo", [TENANT, "recipe.rl.weights=bf16"]))


def test_swapping_the_machine_leaves_data_reward_algorithm_and_tenant_alone():
    gpu, cpu = (compose_recipe("ppo", [TENANT, *o]) for o in ([], ["machine=cpu"]))
    for key in ("rewriter", "algorithm", "data.train_files", "recipe.rl", "actor_rollout_ref.actor.clip_ratio"):
        assert OmegaConf.select(gpu, key) == OmegaConf.select(cpu, key), key
    assert gpu.actor_rollout_ref.rollout.dtype != cpu.actor_rollout_ref.rollout.dtype


def test_one_gpu_differs_from_four_in_their_number_alone():
    one, four = (compose_recipe("sft", [TENANT, f"machine={name}"]).recipe.machine for name in ("gpu1", "gpu4"))
    assert {key for key in four if one[key] != four[key]} == {"gpus_per_node"} and one.gpus_per_node == 1


def test_ppo_keeps_the_documented_values():
    config = compose_recipe("ppo", [TENANT])
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.optim.lr, config.critic.optim.lr) == (1e-6, 1e-5)
    assert (actor.ppo_epochs, actor.clip_ratio, actor.optim.clip_grad, actor.entropy_coeff) == (4, 0.2, 0.5, 0.01)
    assert (config.algorithm.adv_estimator, config.algorithm.gamma, config.algorithm.lam) == ("gae", 0.99, 0.95)
    assert (rollout.temperature, rollout.top_p, rollout.response_length, rollout.prompt_length) == (0.7, 1.0, 200, 1024)
    assert (config.data.train_batch_size, config.trainer.total_epochs, config.trainer.n_gpus_per_node) == (16, 10, 4)
    assert config.trainer.default_local_dir == "outputs/rl/fivedoctors"


@pytest.mark.parametrize("recipe", ["ppo", "grpo", "rloo"])
def test_lora_trains_adapters_on_a_bf16_base_that_the_engine_reads_itself(recipe):
    config = compose_recipe(recipe, [TENANT, "train=lora"])
    actor, rollout, model = (
        config.actor_rollout_ref.actor,
        config.actor_rollout_ref.rollout,
        config.actor_rollout_ref.model,
    )
    assert (model.lora_rank, model.lora_alpha, actor.optim.lr, actor.fsdp_config.model_dtype) == (64, 32, 3e-6, "bf16")
    assert (config.critic.model.lora_rank, config.critic.fsdp.model_dtype) == (64, "bf16")
    assert rollout.load_format == "safetensors" and rollout.layered_summon
    check_precision(config)
    full = compose_recipe(recipe, [TENANT])
    assert full.actor_rollout_ref.model.lora_rank == 0 and full.actor_rollout_ref.rollout.load_format == "dummy"


@pytest.mark.parametrize("recipe", ["sft", "ppo", "grpo", "rloo"])
def test_a_pretrained_model_trains_on_a_cpu(recipe):
    config = compose_recipe(recipe, [TENANT, "machine=cpu", "model=smollm2_135m"])
    check_settings(recipe, config)
    check_batches(config)
    check_precision(config)
    facts = facts_of(str(config.recipe.start_from), "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert facts.parameters / 1e6 == pytest.approx(134.5, abs=0.1)
    if recipe != "sft":
        assert facts.embedding * 4 <= config.recipe.machine.weight_bucket_mb << 20
    check_frozen_layers(config, facts)


@pytest.mark.parametrize(
    ("recipe", "setting", "model"),
    [
        ("sft", "recipe.sft", "model"),
        ("ppo", "recipe.rl", "critic.model"),
        ("grpo", "recipe.rl", "actor_rollout_ref.model"),
    ],
)
def test_frozen_layers_are_excluded_from_adapters(recipe, setting, model):
    config = compose_recipe(recipe, [TENANT, f"{setting}.frozen_layers=12"])
    pattern = OmegaConf.select(config, f"{model}.exclude_modules")
    excluded = (
        "model.layers.0.mlp.up_proj",
        "layers.11.self_attn.q_proj",
        "base_model.model.model.embed_tokens.weight",
    )
    assert all(re.fullmatch(pattern, name) for name in excluded)
    others = (
        "model.layers.12.mlp.up_proj",
        "model.layers.110.mlp.up_proj",
        "model.norm.weight",
        "lm_head.weight",
        "score",
    )
    assert not any(re.fullmatch(pattern, name) for name in others)
    assert OmegaConf.select(compose_recipe(recipe, [TENANT]), f"{model}.exclude_modules", default="missing") is None


def test_frozen_layers_leave_some_and_need_lora_on_gpus():
    facts = KNOWN_MODELS["Qwen/Qwen3-8B"]
    check_frozen_layers(compose_recipe("grpo", [TENANT, "train=lora", "recipe.rl.frozen_layers=35"]), facts)
    check_frozen_layers(compose_recipe("sft", [TENANT, "recipe.sft.frozen_layers=35"]), None)
    for overrides in (["train=lora", "recipe.rl.frozen_layers=36"], ["recipe.rl.frozen_layers=1"]):
        with pytest.raises(BadInput, match=r"recipe\.rl\.frozen_layers"):
            check_frozen_layers(compose_recipe("grpo", [TENANT, *overrides]), facts)
    assert facts.lora_parameters(8, 18) * 2 == facts.lora_parameters(8)


def test_settings_that_keep_a_run_within_its_card_and_its_ratio_unbiased():
    ppo, grpo = (compose_recipe(name, [TENANT]) for name in ("ppo", "grpo"))
    shares = [config.actor_rollout_ref.rollout.gpu_memory_utilization for config in (ppo, grpo)]
    assert shares == [0.35, 0.45]
    for config in (ppo, grpo):
        # Where the trainer reads it, not only where it is written.
        assert config.actor_rollout_ref.actor.fsdp_config.entropy_from_logits_with_chunking is True
        assert (
            config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu == config.critic.ppo_max_token_len_per_gpu == 8192
        )
        assert config.actor_rollout_ref.ref.fsdp_config.model_dtype == "bf16"
        assert config.actor_rollout_ref.rollout.top_p == 1.0 and config.trainer.val_before_train
        assert config.critic.fsdp.param_offload and config.critic.fsdp.optimizer_offload
    tiny = compose_recipe("grpo", [TENANT, *CPU])
    assert tiny.actor_rollout_ref.ref.fsdp_config.model_dtype == "fp32" and not tiny.trainer.val_before_train


@pytest.mark.parametrize(("machine", "model"), [("gpu4", "qwen3_8b"), ("gpu8", "qwen3_32b"), ("gpu4_24gb", "qwen3_4b")])
def test_a_weight_bucket_holds_the_largest_weight(machine, model):
    config = compose_recipe("grpo", [TENANT, f"machine={machine}", f"model={model}"])
    embedding = KNOWN_MODELS[config.recipe.pretrained].embedding * 4  # bytes of fp32
    assert embedding <= config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes << 20


def test_siblings_share_small_blocks_of_their_prompt_on_a_cpu():
    block = "actor_rollout_ref.rollout.engine_kwargs.vllm.block_size"
    assert OmegaConf.select(compose_recipe("grpo", [TENANT, *CPU]), block) == 32
    assert OmegaConf.select(compose_recipe("grpo", [TENANT]), block) is None


def test_rloo_is_grpo_with_another_baseline():
    grpo, rloo = (compose_recipe(name, [TENANT]) for name in ("grpo", "rloo"))
    assert (grpo.algorithm.adv_estimator, rloo.algorithm.adv_estimator) == ("grpo", "rloo")
    rloo.algorithm.adv_estimator = "grpo"
    assert rloo == grpo


def test_sft_does_not_switch_thinking_on():
    data = compose_recipe("sft", [TENANT]).data
    assert data.enable_thinking_default is None and data.apply_chat_template_kwargs.enable_thinking is False


@pytest.mark.parametrize("overrides", [[], ["judge=gpt5"], ["judge=deepseek_v3"], ["judge=self_hosted"]])
def test_the_composed_rewriter_holds_every_setting_at_its_resolved_value(overrides):
    config = compose_recipe("grpo", [TENANT, *overrides])
    settings = check_settings("grpo", config)
    shown = OmegaConf.to_container(config.rewriter)
    assert shown.pop("canary") == {"file": None, "every_steps": 50, "drift": 0.2} and settings.canary is None
    assert shown == settings.model_dump(mode="json", exclude={"canary"})


def test_a_yaml_file_names_only_what_differs_from_the_typed_defaults():
    files = {"tenant": (TenantSettings, load_tenant), "judge": (JudgeSettings, load_judge)}
    for group, (model, load) in files.items():
        defaults = typed_defaults(model)
        for path in (CONFIG_DIR / group).glob("*.yaml"):
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            if "rewriter" in values:
                continue  # judge=none
            load(path.stem)
            for key, value in values.items():
                assert value != defaults[key], f"{path.name}: {key} repeats the default"


@pytest.mark.parametrize("key", IGNORED_KEYS)
def test_a_key_that_verl_ignores_is_an_error(key):
    config = compose_recipe("grpo", [TENANT])
    OmegaConf.update(config, f"{key}.path", "somewhere.py", force_add=True)
    with pytest.raises(BadInput, match=key):
        check_settings("grpo", config)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["rewriter.reward.formula=v9"], ["rewriter", "reward.formula"]),
        (["rewriter.reward.wieght_judge=0.4"], ["rewriter.reward.wieght_judge: no such setting"]),
        (["+rewriter.reward.wieght_judge=0.4"], ["rewriter", "wieght_judge"]),
        (["rewriter.judge.mode=pairwise"], ["rewriter.judge.mode", "judge=NAME"]),
        (["judge=gpt5", "rewriter.reward.formula=v1", "rewriter.judge.mode=pairwise"], ["pairwise", "v1"]),
        (["judge=gpt6"], ["judge=gpt6", "known: deepseek_v3, gpt5"]),
        (["machine=gpu3"], ["machine=gpu3", "gpu4_40gb"]),
        (["recipe.rl.group_size=x"], ["recipe", "rl.group_size", "integer"]),
        (["recipe.rl.group_size=1"], ["recipe.rl.group_size", "siblings"]),
        (["recipe.rl.actor_lr=-1e-6"], ["rl.actor_lr"]),
        (["recipe.rl.max_model_len=100"], ["max_model_len=100"]),
        (["recipe.rl.lr_schedule=linear"], ["rl.lr_schedule", "cosine"]),
        (["recipe.machine.gpus_per_node=0"], ["machine.gpus_per_node"]),
        (["recipe.machine.tensor_parallel=3"], ["tensor_parallel=3"]),
        (["recipe.machine.dtype=fp16"], ["machine.dtype"]),
        (["rewriter.canary.file=pairs.jsonl"], ["canary", "no judge"]),
        (["rewriter.ledger.run.cny=-1"], ["ledger.run.cny"]),
        (["rewriter.reward.length.target=900"], ["rewriter", "reward.length", "900"]),
        (["rewriter.tenant.rag.timeout=-1"], ["tenant.rag.timeout"]),
        (["tenant=nobody"], ["nobody"]),
        (["data.no_such_key=1"], ["data.no_such_key: no such setting"]),
    ],
)
def test_a_wrong_setting_costs_one_line(overrides, words, capsys):
    assert main(["grpo", TENANT, *CPU, *overrides]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.strip().splitlines()) == 1
    assert all(word in err for word in words), err


def test_unknown_recipe_missing_tenant_and_missing_data(tmp_path, capsys):
    with pytest.raises(BadInput, match=r"known: .*grpo, .*ppo, .*rloo, .*sft"):
        compose_recipe("fivedoctors_ppo", [])
    with pytest.raises(BadInput, match=r"tenant=NAME is missing \(known: .*fivedoctors"):
        compose_recipe("rloo", [])
    assert main(["--config-name", "sft", TENANT, f"recipe.data_dir={tmp_path}"]) == 2
    assert str(tmp_path / "sft_train.parquet") in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2


def test_show_prints_the_whole_recipe_without_data_or_services(capsys):
    assert main(["grpo", "--show", TENANT, "recipe.rl.group_size=4"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert list(shown)[:2] == ["recipe", "rewriter"]
    assert shown["actor_rollout_ref"]["rollout"]["n"] == 4
    assert shown["rewriter"]["reward"]["gates"] and shown["rewriter"]["tenant"]["rag"]["timeout"] == 30
    assert shown["rewriter"]["ledger"]["path"] == "outputs/rl/fivedoctors/ledger.sqlite"


def test_a_data_file_that_is_none_costs_one_line(tmp_path, capsys):
    for name in ("rl_train.parquet", "rl_val.parquet"):
        (tmp_path / name).write_bytes(b"no parquet")
    assert main(["grpo", TENANT, *CPU, f"recipe.data_dir={tmp_path}"]) == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "rl_train.parquet" in line]
    assert line.startswith("BAD  data")


def test_wandb_without_a_login_is_said_before_the_start(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config = compose_recipe("ppo", [TENANT])
    with pytest.raises(BadInput, match="WANDB_API_KEY"):
        check_loggers(config)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_loggers(config)


def test_tenants_load_and_hold_no_secret():
    for path in (CONFIG_DIR / "tenant").glob("*.yaml"):
        assert load_tenant(path.stem).tenant_id == path.stem
        assert "sk-" not in path.read_text(encoding="utf-8")


def test_every_key_of_the_typed_settings_has_a_default_to_override():
    defaults = typed_defaults(RewriterSettings)
    assert defaults["reward"]["length"] == {"target": 60, "penalty": 0.002, "cap": 500}
    assert defaults["judge"]["model"] is None and defaults["judge"]["attempts"] == 3
    assert defaults["canary"]["file"] is None
