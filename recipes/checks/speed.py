"""How long a step takes and what the judge costs at most: the latency of retrieval is measured, the rest calculated.

A rollout is rewarded while others are still written: a step lasts as long as the slower of the two, then the updates.
"""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median

from omegaconf import DictConfig

import reward.judge
from recipes.checks.finding import Finding, bad, ok, warning
from recipes.model_facts import ModelFacts
from reward.judge.costs import cost_bound
from reward.judge.protocol import asks_facts, pairwise_question, pointwise_question, render_rubric
from reward.records.call import ServiceFailure
from reward.records.sample import Sample
from reward.services.rag_client import RagClient
from reward.settings.recipe import JudgeSettings, RewriterSettings

QUERIES = 8
SECONDS = 5.0
# Dense bf16 TFLOP/s and GB/s of memory, from the makers' data sheets.
CARDS = {
    "H200": (989, 4800), "H100": (989, 3350), "H800": (989, 3350), "A100": (312, 2039), "A800": (312, 2039),
    "H20": (148, 4000), "L40S": (362, 864), "A6000": (155, 768), "4090": (165, 1008), "L4": (121, 300),
}  # fmt: skip
COMPUTE_SHARE, BANDWIDTH_SHARE = 0.35, 0.6  # of those that training and decoding reach


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step."""

    rollout: float
    reward: float
    update: float

    @property
    def total(self) -> float:
        return max(self.rollout, self.reward) + self.update

    @property
    def bound(self) -> str:
        return "reward-bound" if self.reward > self.rollout else "rollout-bound"


def rollouts_of(config: DictConfig) -> int:
    """Rollouts of a step."""
    return config.recipe.rl.prompts_per_step * config.recipe.rl.group_size


def measure_retrieval(settings: RewriterSettings, samples: Sequence[Sample]) -> list[float]:
    """Seconds that the retrieval service takes for each of a few queries, asked at the concurrency of training; a
    failed call has none."""
    tenant = settings.tenant

    async def ask(client: RagClient, sample: Sample) -> float | None:
        start = time.perf_counter()
        answer, _ = await client.retrieve(sample.original_query, sample.context, top_k=settings.reward.top_k)
        return None if isinstance(answer, ServiceFailure) else time.perf_counter() - start

    async def ask_all() -> list[float | None]:
        client = RagClient(tenant.rag, tenant.tenant_id)
        try:
            return list(await asyncio.gather(*(ask(client, sample) for sample in samples[:QUERIES])))
        finally:
            await client.aclose()

    return [seconds for seconds in asyncio.run(ask_all()) if seconds is not None]


def waiting_seconds(calls: int, latency: float, concurrency: int, per_minute: int | None) -> float:
    """Seconds that `calls` take: in waves of `concurrency`, or as slow as the limit per minute."""
    waves = ceil(calls / concurrency) * latency
    return max(waves, calls * 60 / per_minute) if per_minute else waves


def card_speed(name: str) -> tuple[float, float] | None:
    """(FLOP/s, bytes/s) of a card by its name; `None` for an unknown one."""
    found = next((speed for known, speed in CARDS.items() if known in name), None)
    return (found[0] * 1e12, found[1] * 1e9) if found else None


def gpu_seconds(
    config: DictConfig, facts: ModelFacts, prompt_tokens: int, speed: tuple[float, float]
) -> tuple[float, float]:
    """Seconds of a step's rollout and of its updates.

    Decoding reads all weights once a token; a trained token costs 8 operations a weight with gradient checkpointing,
    a scored one 2.

    Args:
        prompt_tokens: of a typical prompt; rewrites count at half their limit.
        speed: FLOP/s and bytes/s of a card.
    """
    machine, rl = config.recipe.machine, config.recipe.rl
    gpus, flops, bandwidth = machine.nodes * machine.gpus_per_node, speed[0] * COMPUTE_SHARE, speed[1] * BANDWIDTH_SHARE
    rollouts, written = rollouts_of(config), rl.max_new_tokens / 2
    engines = max(1, gpus // machine.tensor_parallel)
    waves = ceil(rollouts / engines / machine.concurrent_rollouts)
    decode = waves * rl.max_new_tokens * facts.parameters * 2 / machine.tensor_parallel / bandwidth
    prefill = 2 * facts.parameters * rollouts * prompt_tokens / (gpus * flops)
    tokens = rollouts * (prompt_tokens + written)
    models = 2 if config.algorithm.adv_estimator == "gae" else 1
    scored = 2 * 2  # old log-probabilities and the reference's
    trained = 8 * config.actor_rollout_ref.actor.ppo_epochs * models
    return decode + prefill, facts.parameters * tokens * (trained + scored) / (gpus * flops)


def judge_calls(config: DictConfig, judge: JudgeSettings, prompts: int) -> tuple[int, int]:
    """Calls of the judge in an epoch: (for the policy's rewrites, for the baseline's, which are paid once a run)."""
    rollouts = prompts * config.recipe.rl.group_size
    if judge.mode == "pairwise":
        return 2 * rollouts, 0
    return rollouts, prompts * judge.baseline_votes


def judge_cost_findings(
    config: DictConfig, settings: RewriterSettings, sample: Sample, prompts: int, measured: float | None = None
) -> list[Finding]:
    """Say what the judge costs in an epoch and in the whole run, against the run's budget.

    Args:
        measured: yuan of a call, from the judge's own calls; without it only the most is known.
    """
    judge = settings.judge
    assert judge is not None
    prompt = (Path(reward.judge.__file__).parent / "prompts" / f"{judge.mode}-{judge.prompt}.txt").read_text("utf-8")
    system = render_rubric(prompt, settings.tenant.system_prompt)
    rewrite, facts = sample.candidates.baseline or sample.original_query, asks_facts(prompt)
    if judge.mode == "pairwise":
        question = pairwise_question(system, sample, rewrite, rewrite, facts=facts)
    else:
        question = pointwise_question(system, sample, rewrite, facts=facts)
    # Without repeats: a well-formed verdict is asked for once.
    each = cost_bound(judge, question, settings.ledger.cny_per_usd) / judge.attempts
    again, once = judge_calls(config, judge, prompts)
    epochs = config.trainer.total_epochs
    if config.trainer.total_training_steps:
        epochs = config.trainer.total_training_steps * config.recipe.rl.prompts_per_step / prompts
    total = (again * epochs + once) * each
    text = (
        f"at most {(again + once) * each:.0f} CNY the first epoch, {total:.0f} in all "
        f"({again} + {once} calls an epoch, {each:.4f} each)"
    )
    if measured is not None:
        first, whole = (again + once) * measured, (again * epochs + once) * measured
        text = f"about {first:.1f} CNY the first epoch, {whole:.1f} in all; {text}"
    budget = settings.ledger.run.cny
    if budget is not None and total > budget:
        return [warning("judge cost", f"{text}; the budget is {budget:g} CNY: the run stops with exit code 76 there")]
    return [ok("judge cost", text)]


def judge_reach_findings(judge: JudgeSettings, environment: Mapping[str, str]) -> list[Finding]:
    """Ask the judge's service for its list of models, which costs nothing: does it answer, does it take the key?"""
    headers = {"Authorization": f"Bearer {environment[judge.api_key_env]}"} if judge.api_key_env else {}
    request = urllib.request.Request(f"{judge.base_url.rstrip('/')}/models", headers=headers)
    handlers = [] if judge.proxy_from_env else [urllib.request.ProxyHandler({})]
    start = time.perf_counter()
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=SECONDS):
            took = time.perf_counter() - start
            return [ok("judge", f"{judge.base_url} answers in {took:.2f} s (its list of models; no paid call)")]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return [bad("judge", f"{judge.base_url} refuses the key in {judge.api_key_env or 'no variable'}")]
        return [warning("judge", f"{judge.base_url}/models answers {error.code}; reachable, nothing more is known")]
    except (OSError, ValueError) as error:
        return [bad("judge", f"{judge.base_url} cannot be reached ({getattr(error, 'reason', error)})")]


def step_findings(
    config: DictConfig,
    settings: RewriterSettings,
    latencies: list[float],
    gpu: tuple[float, float] | None,
    judge: tuple[int, float] | None = None,
) -> list[Finding]:
    """Predict a step from the measured latencies.

    Args:
        latencies: of retrieval, in seconds.
        gpu: (rollout, update) in seconds where the card is known.
        judge: (calls of a step, seconds of a call) where the latency is known.
    """
    if not latencies:
        return [bad("latency", f"{settings.tenant.rag.url}: none of {QUERIES} queries was answered")]
    rag = settings.tenant.rag
    latency, rollouts = median(latencies), rollouts_of(config)
    reward = retrieval = waiting_seconds(rollouts, latency, rag.max_concurrency, rag.requests_per_minute)
    text = (
        f"retrieval {latency:.3f} s at {min(QUERIES, rag.max_concurrency)} together, slowest {max(latencies):.3f}; "
        f"{retrieval:.1f} s for a step's {rollouts} rollouts"
    )
    if judge is not None and settings.judge is not None:
        limits = settings.judge
        judged = waiting_seconds(*judge, limits.max_concurrency, limits.requests_per_minute)
        # Both are asked at once: the slower one counts.
        reward = max(retrieval, judged)
        text += f"; judge {judge[1]:.2f} s, {judged:.1f} s for {judge[0]} calls at {limits.max_concurrency} together"
    findings = [ok("latency", text)]
    if gpu is None:
        bound = "retrieval" if reward == retrieval else "the judge"
        return [
            *findings,
            ok("step", f"reward {reward:.1f} s, set by {bound}; the rest is not predicted: no known card"),
        ]
    step = StepTime(gpu[0], reward, gpu[1])
    text = (
        f"about {step.total:.0f} s: rollout {step.rollout:.0f}, reward {step.reward:.0f} beside it, "
        f"update {step.update:.0f}; {step.bound}"
    )
    if settings.judge is not None and judge is None:
        text += "; without the judge's time"
    slow = step.reward > step.rollout + step.update
    return [*findings, (warning if slow else ok)("step", text)]
