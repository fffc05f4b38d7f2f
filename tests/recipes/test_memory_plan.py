"""The memory plan: public figures of an 8B row by row, every shipped profile, and what is said when it does not fit."""

import json

import pytest

from recipes.checks.settings import check_batches, check_frequencies, check_precision
from recipes.compose import compose_recipe
from recipes.memory_plan import plan_lines, plan_memory
from recipes.model_facts import KNOWN_MODELS, facts_of, read_facts
from reward.records.files import BadInput

TENANT = "tenant=fivedoctors"
QWEN_8B = KNOWN_MODELS["Qwen/Qwen3-8B"]
SHARE = "recipe.machine.gpu_memory_utilization"


def plan(recipe, *overrides, card=None, facts=None):
    config = compose_recipe(recipe, [TENANT, *overrides])
    return plan_memory(config, facts or KNOWN_MODELS[config.recipe.pretrained], card)


def within_a_tenth(value, low, high):
    return 0.9 * low <= value <= 1.1 * high


@pytest.mark.parametrize(
    ("name", "billions"),
    [("Qwen/Qwen3-0.6B", 0.596), ("Qwen/Qwen3-4B", 4.022), ("Qwen/Qwen3-8B", 8.191), ("Qwen/Qwen3-32B", 32.762)],
)
def test_weights_counted_from_a_config_are_those_that_are_published(name, billions):
    assert KNOWN_MODELS[name].parameters / 1e9 == pytest.approx(billions, abs=0.001)


def test_an_8b_in_numbers():
    assert QWEN_8B.critic_parameters / 1e9 == pytest.approx(7.568, abs=0.001)
    assert QWEN_8B.kv_bytes_per_token == 144 * 1024
    assert QWEN_8B.lora_parameters(64) / 1e6 == pytest.approx(174.6, abs=0.1)


# The review of the 8B recipes: GiB a GPU of the rollout, the actor's and the critic's update, and its verdict.
REVIEW = [
    ("ppo", [f"{SHARE}_with_critic=.55"], 79.65, (77, 78), (45, 50), (55, 55), "tight"),
    ("ppo", [f"{SHARE}_with_critic=.35"], 79.65, (62, 62), (45, 50), (55, 55), "fits"),
    ("grpo", [f"{SHARE}=.45", "recipe.machine.tokens_per_gpu=16384"], 79.65, (63, 63), (50, 50), None, "fits"),
    ("grpo", ["machine=gpu4_48gb", "train=lora"], 47.5, (32, 32), (15, 20), None, "fits"),
]


@pytest.mark.parametrize(("recipe", "overrides", "card", "rollout", "actor", "critic", "verdict"), REVIEW)
def test_the_reviewed_setups_within_a_tenth(recipe, overrides, card, rollout, actor, critic, verdict):
    beside = ["critic.fsdp.param_offload=false"] if critic else []  # its parameters stayed on the card
    planned = plan(recipe, *overrides, *beside, card=card)
    assert within_a_tenth(planned.phase("rollout").total, *rollout)
    assert within_a_tenth(planned.phase("actor update").total, *actor)
    if critic:
        assert within_a_tenth(planned.phase("critic update").total, *critic)
    assert planned.verdict == verdict


# What `benchmarks.gpu_check` measured on one H200 (docs/benchmarks.md): the largest micro-batch, then the GiB that
# torch allocated at most until the gradients were there, and in AdamW's step with torch's default `foreach`.
SFT_4B = ("sft", ["model=qwen3_4b", "recipe.sft.lora_rank=0", "recipe.sft.weights=fp32"])
PPO_4B = ("ppo", ["model=qwen3_4b", "recipe.rl.prompts_per_update=32", "recipe.rl.prompts_per_step=32"])
MEASURED = [
    ("sft", [], 5048, "update", 20.0, None),
    (*SFT_4B, 5048, "update", 64.23, 75.40),
    ("grpo", ["train=lora"], 7973, "actor update", 22.57, None),
    ("grpo", ["train=lora"], 7618, "actor update", 22.35, None),
    ("grpo", ["model=qwen3_4b"], 7973, "actor update", 65.60, 75.42),
    ("grpo", ["model=qwen3_4b"], 4004, "actor update", 63.86, 75.40),
    (*PPO_4B, 7650, "critic update", 64.48, 75.42),
]


@pytest.mark.parametrize(("recipe", "overrides", "tokens", "phase", "passes", "adamw"), MEASURED)
def test_measured_peaks_within_half_a_gib(recipe, overrides, tokens, phase, passes, adamw):
    node = ["recipe.machine.gpus_per_node=1", f"recipe.machine.tokens_per_gpu={tokens}", *overrides]
    if recipe == "sft":
        node.append(f"recipe.sft.max_tokens={tokens}")
    foreach = "optim.override_optimizer_config={{foreach:{}}}" if recipe == "sft" else "recipe.rl.adam_foreach={}"

    def allocated(value):
        parts = plan(recipe, *node, foreach.format(value)).phase(phase).parts
        return sum(parts.values()) - parts["overhead"] - parts["other model"]

    assert allocated("false") == pytest.approx(passes, abs=0.5)
    assert allocated("null") == pytest.approx(adamw or passes, abs=0.5)


def test_adamws_step_is_advised_against_where_it_is_the_peak():
    whole = ["machine=gpu1", "model=qwen3_4b", "recipe.sft.lora_rank=0", "recipe.sft.weights=fp32"]
    planned = plan("sft", *whole)
    assert planned.verdict == "tight" and planned.advice[0] == "optim.override_optimizer_config={foreach:false}"
    assert plan("sft", *whole, planned.advice[0]).verdict == "fits"
    # The recipes that train all weights with RL take that advice: a 32B would not fit otherwise.
    big = ["machine=gpu8", "model=qwen3_32b"]
    assert plan("grpo", *big).verdict == "fits" and plan("grpo", *big, "recipe.rl.adam_foreach=null").verdict != "fits"


def test_an_8b_with_adapters_on_four_cards_of_24_gb_needs_two_for_an_engine():
    alone = plan("grpo", "machine=gpu4_24gb", "train=lora")
    assert alone.verdict == "does not fit" and alone.kv_tokens == 0
    assert alone.advice[0] == "recipe.machine.tensor_parallel=2" and "model=qwen3_4b" in alone.advice
    assert plan("grpo", "machine=gpu4_24gb", "train=lora", "recipe.machine.tensor_parallel=2").verdict != "does not fit"


def test_all_weights_of_an_8b_on_four_cards_of_48_gb():
    """The review's 28 are the states of an update (parameters, gradients, Adam); activations and logits come on top."""
    small = ["machine=gpu4_48gb", "recipe.machine.offload_actor=true", "recipe.machine.tokens_per_gpu=4096"]
    for recipe, host in (("grpo", 0), ("ppo", 256)):
        planned = plan(recipe, *small, card=47.5)
        states = [
            sum(phase.parts[part] for part in ("parameters", "gradients", "Adam")) for phase in planned.phases[1:]
        ]
        assert all(within_a_tenth(state, 28, 28) for state in states) and len(states) == (2 if recipe == "ppo" else 1)
        assert planned.verdict != "does not fit" and planned.host >= host
    assert plan("grpo", "machine=gpu4_48gb", card=47.5).verdict == "does not fit"


PROFILES = [
    ("gpu4", "qwen3_8b", "full", ("ppo", "grpo", "rloo")),
    ("gpu4", "qwen3_8b", "lora", ("ppo", "grpo", "rloo")),
    ("gpu4_48gb", "qwen3_8b", "lora", ("ppo", "grpo", "rloo")),
    ("gpu4_40gb", "qwen3_8b", "lora", ("ppo", "grpo", "rloo")),
    ("gpu4_24gb", "qwen3_4b", "lora", ("ppo", "grpo", "rloo")),
    ("gpu1_24gb", "qwen3_4b", "lora", ("grpo", "rloo")),
    ("gpu8", "qwen3_32b", "full", ("ppo", "grpo", "rloo")),
    ("gpu8", "qwen3_32b", "lora", ("ppo", "grpo", "rloo")),
]


@pytest.mark.parametrize(
    ("machine", "model", "train", "recipe"),
    [(machine, model, train, recipe) for machine, model, train, recipes in PROFILES for recipe in recipes],
)
def test_every_profile_composes_and_fits(machine, model, train, recipe):
    overrides = [TENANT, f"machine={machine}", f"model={model}", f"train={train}"]
    config = compose_recipe(recipe, overrides)
    check_batches(config)
    check_precision(config)
    planned = plan_memory(config, KNOWN_MODELS[config.recipe.pretrained])
    assert planned.verdict == "fits" and not planned.advice, plan_lines(planned)
    assert planned.kv_tokens > 16 * config.recipe.rl.max_model_len


@pytest.mark.parametrize(
    ("machine", "model"),
    [("gpu4", "8b"), ("gpu1", "8b"), ("gpu4_48gb", "8b"), ("gpu4_24gb", "4b"), ("gpu1_24gb", "8b"), ("gpu8", "32b")],
)
def test_distillation_fits_every_profile(machine, model):
    assert plan("sft", f"machine={machine}", f"model=qwen3_{model}").verdict == "fits"


def test_two_nodes_halve_what_a_node_holds():
    one, two = (plan("grpo", "machine=gpu8", "model=qwen3_32b", f"recipe.machine.nodes={n}") for n in (1, 2))
    assert two.phase("actor update").parts["Adam"] == one.phase("actor update").parts["Adam"] / 2


@pytest.mark.parametrize(
    ("recipe", "override", "phase"),
    [
        ("ppo", "recipe.machine.offload_actor=true", "rollout"),
        ("ppo", "recipe.machine.offload_actor=true", "critic update"),
        ("grpo", "recipe.machine.tokens_per_gpu=4096", "actor update"),
        ("grpo", "train=lora", "actor update"),
        ("ppo", "actor_rollout_ref.actor.entropy_coeff=0", "actor update"),
    ],
)
def test_an_override_that_saves_memory_saves_it(recipe, override, phase):
    assert plan(recipe, override).phase(phase).total < plan(recipe).phase(phase).total


def test_a_folder_is_read_from_its_config(tmp_path):
    config = {
        "vocab_size": 2000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "tie_word_embeddings": True,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    facts = facts_of(str(tmp_path), "Qwen/Qwen3-8B")
    assert (facts.head_dim, facts.num_key_value_heads, facts.hidden_size) == (16, 4, 64)
    assert facts_of(str(tmp_path / "absent"), "Qwen/Qwen3-8B") == QWEN_8B  # trained from it, not there yet
    assert facts_of("some/model", "another/model") is None
    for text, word in [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        (json.dumps(config | {"vocab_size": "x"}), "vocab_size"),
    ]:
        path.write_text(text)
        with pytest.raises(BadInput, match=word):
            read_facts(path)


@pytest.mark.full
@pytest.mark.parametrize("machine", ["gpu1", "gpu1_24gb", "gpu4", "gpu4_24gb", "gpu4_40gb", "gpu4_48gb", "gpu8"])
@pytest.mark.parametrize("model", ["qwen3_4b", "qwen3_8b", "qwen3_32b"])
@pytest.mark.parametrize(("recipe", "train"), [("ppo", "full"), ("rloo", "lora")])
def test_any_combination_composes_and_fits_or_says_what_would(machine, model, recipe, train):
    overrides = [TENANT, f"machine={machine}", f"model={model}", f"train={train}"]
    config = compose_recipe(recipe, overrides)
    check_batches(config)
    check_precision(config)
    check_frequencies(config)
    planned = plan_memory(config, KNOWN_MODELS[config.recipe.pretrained])
    assert (planned.verdict == "fits") == (not planned.advice), plan_lines(planned)
    assert all("=" in advice or "card" in advice for advice in planned.advice)
