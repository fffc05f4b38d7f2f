"""Predicts the GPU memory of a recipe, phase by phase, before it costs a start: pure arithmetic.

    vLLM            gpu_memory_utilization x card: weights (2 bytes / tensor_parallel), activations, KV cache
    a model's state parameters, gradients and two Adam moments, each divided among the cards (FSDP2)
    activations     one hidden state a block (gradient checkpointing), and the block at work
    logits          tokens x vocabulary, in bf16: the logits, which their gradient overwrites, a copy at a temperature
    AdamW's step    one more copy of what is trained; it comes when activations and logits are gone

Updates agree within 0.5 GiB with `benchmarks.gpu_check` (one H200; 4B with all weights, 8B with LoRA, 4 000 to 8 000
tokens). The rollout is not measured.

What stays on the card beside a phase follows verl 0.9.1: gradients live during their own update only;
`param_offload` and `optimizer_offload` move a model away outside its own update; a reference is in host memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import DictConfig

from recipes.model_facts import ModelFacts

GIB = 2**30
BYTES = {"fp32": 4, "bf16": 2}
# Outside torch's allocator, each process: CUDA context, kernels, NCCL. 1.28 measured (benchmarks.gpu_check, one H200).
CONTEXT_GIB = 1.3
# What the allocator holds and cannot use. An estimate: with room to spare it kept 2 to 8 GiB more than its peak.
FRAGMENTS_GIB = 1.0
# The engine's own activations and graphs at 8192 batched tokens for an 8B. An estimate, not measured.
ENGINE_ACTIVATIONS_GIB = 2.0
ADAMW_STEP = "AdamW's step"
ENTROPY_CHUNK = 2048  # verl's entropy_from_logits_chunk_size
COMFORTABLE, FULL = 0.93, 1.0  # share of a card
LARGER_THAN_4B = 5_000_000_000  # weights; for these a smaller model is among the recipes


@dataclass(frozen=True)
class Phase:
    """Memory of one phase on one GPU: what takes it, in GiB."""

    name: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def line(self) -> str:
        parts = ", ".join(f"{name} {size:.1f}" for name, size in self.parts.items() if size >= 0.05)
        return f"{self.name:<14} {self.total:5.1f} GiB ({parts})"


@dataclass(frozen=True)
class MemoryPlan:
    """What a recipe takes on one GPU, and whether it fits.

    Args:
        card: GiB of a GPU.
        host: GiB of host memory on one node.
        kv_tokens: tokens that the rollout engine's cache holds on `tensor_parallel` cards; `None` without rollouts.
        verdict: `fits`, `tight` (above 93 % of the card) or `does not fit`.
        advice: overrides that make it fit, empty when it does.
    """

    card: float
    phases: list[Phase]
    host: float
    kv_tokens: int | None
    verdict: str
    advice: list[str] = field(default_factory=list)

    @property
    def peak(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.total)

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)


@dataclass(frozen=True)
class Trained:
    """GiB a GPU of one model that is trained: `idle` stays during other phases, `state` is its update's.

    `scratch` is what AdamW's step takes beside the state: torch works on all weights at once, and takes as much again.
    """

    parameters: float
    gradients: float
    adam: float
    scratch: float
    idle: float

    @property
    def state(self) -> float:
        return self.parameters + self.gradients + self.adam


def plan_memory(config: DictConfig, facts: ModelFacts, card: float | None = None) -> MemoryPlan:
    """Plan the recipe's memory.

    Args:
        config: the composed recipe, for GPUs.
        card: GiB of a GPU; the machine profile's figure by default.
    """
    card = card or float(config.recipe.machine.gpu_memory_gib)
    if config.recipe.trainer == "sft":
        return _plan_sft(config, facts, card)
    return _plan_rl(config, facts, card)


def trained_model(
    weights: int,
    adapters: int,
    dtype: str,
    gpus: int,
    *,
    offload: bool,
    offload_adam: bool | None = None,
    optimizer: DictConfig | None = None,
) -> Trained:
    """Work out a trained model's share of one GPU.

    Args:
        weights: of the model.
        adapters: of LoRA; 0 when every weight trains. verl keeps them in the base's type.
        gpus: among which FSDP2 divides it.
        offload: whether parameters leave the card between updates.
        offload_adam: whether the optimiser does; as `offload` by default.
        optimizer: verl's node `optim`.
    """
    size = BYTES[dtype] / gpus / GIB
    trained = adapters or weights
    parameters, gradients, adam = (weights + adapters) * size, trained * size, 2 * trained * size
    scratch = gradients if _steps_on_all_at_once(optimizer) else 0.0
    offload_adam = offload if offload_adam is None else offload_adam
    return Trained(parameters, gradients, adam, scratch, (0 if offload else parameters) + (0 if offload_adam else adam))


def _steps_on_all_at_once(optimizer: DictConfig | None) -> bool:
    """Whether AdamW takes torch's default, `foreach`."""
    chosen = (optimizer and optimizer.override_optimizer_config) or {}
    return chosen.get("foreach") is not False and not chosen.get("fused")


def activations(facts: ModelFacts, tokens: int) -> float:
    """GiB of a micro-batch's activations with gradient checkpointing: the hidden state before every block, in bf16."""
    return tokens * facts.hidden_size * 2 * facts.num_hidden_layers / GIB


def block_at_work(facts: ModelFacts, tokens: int, *, trained: bool) -> float:
    """GiB of the block in its backward pass: what it recomputes, the gathered embedding, two gathered blocks.

    A `trained` block has its gradient in bf16 and in fp32 besides.
    """
    hidden = 12 * facts.hidden_size + 2 * facts.head_dim * (facts.num_attention_heads + 2 * facts.num_key_value_heads)
    weights = 2 * facts.embedding + facts.block * (2 * 2 + (2 + 4 if trained else 0))
    return (tokens * 2 * (hidden + 6 * facts.intermediate_size) + weights) / GIB


def logits_at_work(facts: ModelFacts, tokens: int, *, copied: bool, entropy: str, trains_head: bool) -> float:
    """GiB at the top of the model: the logits, the output layer, the next block.

    verl writes the gradient of the logits over them (flash-attn's cross-entropy); not so where the entropy counts.

    Args:
        copied: whether a temperature other than 1 makes a copy.
        entropy: `none`, `whole` (two more bf16 tensors) or `chunked` (three fp32 tensors of a chunk).
        trains_head: whether the output layer has a gradient (no: LoRA).
    """
    one = tokens * facts.vocab_size * 2 / GIB
    head = facts.embedding * 2 / GIB
    chunk = min(tokens, ENTROPY_CHUNK) * facts.vocab_size * 4 / GIB
    extra = {"none": 0.0, "whole": 2 * one, "chunked": 3 * chunk}[entropy]
    logits = one * (2 if copied else 1)
    loss = logits + extra + head
    # The entropy's tensors are gone by now. An output layer that is trained, and its gradient: three times its size in
    # all, measured.
    backward = logits + (one if entropy != "none" else 0) + head * (3 if trains_head else 1)
    return max(loss, backward) + facts.block * 2 / GIB


def micro_batch_tokens(limit: int, dynamic: bool, samples: int, micro_batch: int, longest: int) -> int:
    """Most tokens that one GPU handles at once: `limit` with dynamic batching, else so many of the longest samples."""
    return min(limit, samples * longest) if dynamic else micro_batch * longest


def _plan_sft(config: DictConfig, facts: ModelFacts, card: float) -> MemoryPlan:
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    sft = config.recipe.sft
    adapters = facts.lora_parameters(sft.lora_rank, sft.frozen_layers)
    model = trained_model(facts.parameters, adapters, sft.weights, gpus, offload=False, optimizer=config.optim)
    data = config.data
    tokens = micro_batch_tokens(
        data.max_token_len_per_gpu, data.use_dynamic_bsz, sft.batch // gpus, sft.micro_batch, sft.max_tokens
    )
    top = logits_at_work(facts, tokens, copied=False, entropy="none", trains_head=not sft.lora_rank)
    phase = _update("update", model, 0.0, facts, tokens, top, all_weights=not adapters, processes=1)
    cheapest = f"recipe.sft.max_tokens={sft.max_tokens // 2}"
    if ADAMW_STEP in phase.parts:
        cheapest = "optim.override_optimizer_config={foreach:false}"
    advice = [cheapest, "machine with more cards, or a smaller model" if adapters else "recipe.sft.lora_rank=8"]
    host = 30 + facts.parameters * BYTES[sft.weights] / GIB * (gpus if facts.tie_word_embeddings else 1)
    return _judged(card, [phase], host, None, advice)


def _plan_rl(config: DictConfig, facts: ModelFacts, card: float) -> MemoryPlan:
    machine, rl, ppo = config.recipe.machine, config.recipe.rl, config.algorithm.adv_estimator == "gae"
    actor_config, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    gpus = machine.nodes * machine.gpus_per_node
    adapters = facts.lora_parameters(rl.lora_rank, rl.frozen_layers)
    fsdp = actor_config.fsdp_config
    actor = trained_model(
        facts.parameters, adapters, fsdp.model_dtype, gpus,
        offload=fsdp.param_offload, offload_adam=fsdp.optimizer_offload, optimizer=actor_config.optim,
    )  # fmt: skip
    critic = None
    if ppo:
        fsdp = config.critic.fsdp
        critic = trained_model(
            facts.critic_parameters, adapters, fsdp.model_dtype, gpus,
            offload=fsdp.param_offload, offload_adam=fsdp.optimizer_offload, optimizer=config.critic.optim,
        )  # fmt: skip

    engine = rollout.gpu_memory_utilization * card
    engine_weights = facts.parameters * 2 / GIB / rollout.tensor_model_parallel_size
    cache = engine - engine_weights - ENGINE_ACTIVATIONS_GIB
    idle_critic = critic.idle if critic else 0.0
    phases = [
        Phase(
            "rollout",
            {
                "engine weights": engine_weights,
                "engine work": ENGINE_ACTIVATIONS_GIB,
                "KV cache": max(cache, 0.0),
                "actor": actor.idle,
                "critic": idle_critic,
                "overhead": _overhead(processes=2),
            },
        )
    ]
    # An update's samples on one GPU, each at its longest.
    samples, longest = rl.prompts_per_update * rl.group_size // gpus, rl.max_prompt_tokens + rl.max_new_tokens
    dynamic = machine.dynamic_batching
    tokens = micro_batch_tokens(actor_config.ppo_max_token_len_per_gpu, dynamic, samples, rl.micro_batch, longest)
    chunked = "chunked" if actor_config.entropy_from_logits_with_chunking else "whole"
    entropy = chunked if actor_config.entropy_coeff else "none"
    top = logits_at_work(facts, tokens, copied=rl.temperature != 1, entropy=entropy, trains_head=not rl.lora_rank)
    phases.append(_update("actor update", actor, idle_critic, facts, tokens, top, all_weights=not adapters))
    if critic:
        limit = config.critic.ppo_infer_max_token_len_per_gpu
        tokens = micro_batch_tokens(limit, dynamic, samples, rl.micro_batch, longest)
        phases.append(_update("critic update", critic, actor.idle, facts, tokens, 0.0, all_weights=not adapters))
    reference = (config.algorithm.use_kl_in_reward or actor_config.use_kl_loss) and not rl.lora_rank
    host = _host_memory(config, facts, actor, critic, bool(reference))
    kv_tokens = max(0, int(cache * GIB * rollout.tensor_model_parallel_size / facts.kv_bytes_per_token))
    return _judged(card, phases, host, kv_tokens, _rl_advice(config, facts, card, kv_tokens), rl.max_model_len)


def _update(
    name: str,
    model: Trained,
    beside: float,
    facts: ModelFacts,
    tokens: int,
    top: float,
    *,
    all_weights: bool,
    processes: int = 2,
) -> Phase:
    """The phase that trains `model`, with `beside` GiB of another one on the card: its pass or AdamW's step."""
    block = block_at_work(facts, tokens, trained=all_weights)
    work = {"activations": activations(facts, tokens), "logits" if top > block else "block": max(top, block)}
    if model.scratch > sum(work.values()):
        work = {ADAMW_STEP: model.scratch}
    parts = {"parameters": model.parameters, "gradients": model.gradients, "Adam": model.adam, "other model": beside}
    return Phase(name, {**parts, **work, "overhead": _overhead(processes)})


def _overhead(processes: int) -> float:
    """GiB that no tensor takes, with so many of our processes on the card: the trainer's, the rollout engine's."""
    return processes * CONTEXT_GIB + FRAGMENTS_GIB


def _host_memory(
    config: DictConfig, facts: ModelFacts, actor: Trained, critic: Trained | None, reference: bool
) -> float:
    """GiB of host memory on one node: what is offloaded, the reference, the load, 8 a worker, 30 for Ray's store."""
    machine = config.recipe.machine
    cards = machine.gpus_per_node
    offloaded = sum((m.parameters + m.adam - m.idle) * cards for m in (actor, critic) if m)
    copy = facts.parameters * BYTES[machine.reference_weights] / GIB / machine.nodes if reference else 0.0
    # A tied model is read by every rank, another one by the first alone.
    load = facts.parameters * BYTES[config.recipe.rl.weights] / GIB * (cards if facts.tie_word_embeddings else 1)
    engine = facts.parameters * 2 / GIB * cards / machine.tensor_parallel if config.recipe.rl.lora_rank else 0.0
    return offloaded + copy + load + engine + 8 * cards + 30


def _rl_advice(config: DictConfig, facts: ModelFacts, card: float, kv_tokens: int) -> list[str]:
    """Overrides that free memory, the cheapest first; those in force already are left out."""
    machine, rl = config.recipe.machine, config.recipe.rl
    share = "gpu_memory_utilization" + ("_with_critic" if config.algorithm.adv_estimator == "gae" else "")
    advice = []
    if kv_tokens < rl.max_model_len:
        if machine.gpus_per_node > machine.tensor_parallel:
            advice.append(f"recipe.machine.tensor_parallel={2 * machine.tensor_parallel}")
        advice.append(f"recipe.machine.{share}={min(0.8, machine[share] + 0.15):.2f}")
    if machine.tokens_per_gpu > 4096:
        advice.append("recipe.machine.tokens_per_gpu=4096")
    if not machine.offload_actor:
        advice.append("recipe.machine.offload_actor=true")
    if not rl.lora_rank:
        advice.append("train=lora")
    if facts.parameters > LARGER_THAN_4B and card < 40:
        advice.append("model=qwen3_4b")
    return advice or ["more or larger cards, or a smaller model"]


def _judged(
    card: float,
    phases: list[Phase],
    host: float,
    kv_tokens: int | None,
    advice: list[str],
    longest: int = 0,
) -> MemoryPlan:
    """The plan with its verdict: the largest phase against the card, the cache against one sequence."""
    share = max(phase.total for phase in phases) / card
    starved = kv_tokens is not None and kv_tokens < longest
    verdict = "does not fit" if share > FULL or starved else "tight" if share > COMFORTABLE else "fits"
    return MemoryPlan(card, phases, host, kv_tokens, verdict, [] if verdict == "fits" else advice)


def plan_lines(plan: MemoryPlan) -> list[str]:
    """Lines for the reader: a phase each, the cache, the verdict."""
    lines = [phase.line() for phase in plan.phases]
    if plan.kv_tokens is not None:
        lines.append(f"KV cache       {plan.kv_tokens} tokens an engine")
    lines.append(f"host memory    {plan.host:.0f} GiB a node")
    lines.append(f"{plan.verdict} on {plan.card:.1f} GiB ({plan.peak.name} {plan.peak.total / plan.card:.0%})")
    return lines
