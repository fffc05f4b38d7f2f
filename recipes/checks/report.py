"""Everything that preflight finds out about machine, data and services, in the order of its table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from recipes.checks.cards import Card, card_gib
from recipes.checks.finding import Finding, Level, bad, bad_input_as, ok, refusals, warning
from recipes.checks.machine import checkpoint_gib, disk_findings, model_findings
from recipes.checks.nodes import SUBMIT, ledger_findings, look_at_nodes, look_here, node_findings
from recipes.checks.prompts import Prompts, prompt_findings
from recipes.checks.services import ask_baseline, ask_judge, judge_calls_a_step
from recipes.checks.settings import looks_local
from recipes.checks.speed import (
    card_speed,
    gpu_seconds,
    judge_cost_findings,
    judge_reach_findings,
    measure_retrieval,
    step_findings,
)
from recipes.cluster import joins_cluster
from recipes.compose import compose_recipe
from recipes.memory_plan import MemoryPlan, plan_lines, plan_memory
from recipes.model_facts import ModelFacts
from reward.records.files import BadInput
from reward.records.sample import Sample
from reward.settings.recipe import RewriterSettings

BIASED_TOP_P = "below 1 the rollout draws from a cut distribution and PPO's ratio is biased (recipe.rl.top_p=1.0)"


def machine_findings(
    name: str, overrides: list[str], config: DictConfig, facts: ModelFacts | None, settings: RewriterSettings | None
) -> tuple[list[Card] | str, list[Finding]]:
    """Look at the machine of a recipe for GPUs, or at every node, with the memory plan; a CPU recipe asks for nothing.

    Returns:
        The cards that the run will have, or why there are none; the findings.
    """
    on_gpus = config.recipe.machine.device == "cuda"
    host = plan_memory(config, facts).host if on_gpus and facts is not None else None
    cards: list[Card] | str = "no GPU is asked for"
    findings: list[Finding] = []
    if config.trainer.nnodes > 1 and settings is not None:
        findings += ledger_findings(settings.ledger.path)
        if joins_cluster():
            looks = look_at_nodes(config, settings, host)
            findings += node_findings(config, looks)
            cards = next((look.cards for look in looks if not isinstance(look.cards, str)), "no node has GPUs")
        else:
            findings.append(bad("nodes", f"{config.trainer.nnodes} nodes take a Ray cluster: {SUBMIT}"))
    elif on_gpus:
        cards, findings = look_here(config, host)
    if not on_gpus:
        return cards, findings
    if not looks_local(str(config.model.path)):
        findings += model_findings(str(config.model.path))
    if facts is None:
        return cards, [*findings, warning("memory", f"{config.model.path}: no config.json here, nothing is planned")]
    card = card_gib(cards)
    plan = plan_memory(config, facts, card)
    findings += memory_findings(plan, advise(name, overrides, facts, card) if plan.advice else [])
    findings += disk_findings(Path(config.trainer.default_local_dir), checkpoint_gib(config, facts))
    return cards, findings


def memory_findings(plan: MemoryPlan, advice: list[str]) -> list[Finding]:
    """Show the plan, a line a phase; the verdict last, with what to override."""
    *phases, verdict = plan_lines(plan)
    level = {"fits": ok, "tight": warning, "does not fit": bad}[plan.verdict]
    remedy = f": override {' '.join(advice)}" if advice else ""
    return [*(ok("memory", line) for line in phases), level("memory", verdict + remedy)]


def advise(name: str, overrides: list[str], facts: ModelFacts, card: float | None) -> list[str]:
    """Find overrides with which the recipe fits: one alone where one is enough, else the planner's in order.

    Returns:
        Nothing where a recipe of another model is all that helps, or no override does.
    """

    def planned(extra: Sequence[str]) -> MemoryPlan | None:
        try:
            return plan_memory(compose_recipe(name, [*overrides, *extra]), facts, card)
        except BadInput:
            return None  # an override that this recipe does not know

    plan = planned([])
    advice = [] if plan is None else [item for item in plan.advice if "=" in item and not item.startswith("model=")]
    for one in advice:
        alone = planned([one])
        if alone is not None and alone.verdict == "fits":
            return [one]
    for count in range(2, len(advice) + 1):
        together = planned(advice[:count])
        if together is not None and together.verdict == "fits":
            return advice[:count]
    return [item for item in plan.advice if item not in advice] if plan else []


def sampling_findings(config: DictConfig) -> list[Finding]:
    """Warn of a rollout that draws from another distribution than the one that is scored."""
    if config.recipe.trainer != "rl" or config.recipe.rl.top_p == 1.0:
        return []
    return [warning("top_p", f"{config.recipe.rl.top_p:g}: {BIASED_TOP_P}")]


def service_findings(
    config: DictConfig,
    settings: RewriterSettings,
    facts: ModelFacts | None,
    samples: Sequence[Sample],
    prompts: Prompts,
    rows: int,
    cards: list[Card] | str,
    before: Sequence[Finding],
) -> list[Finding]:
    """Ask baseline and judge, measure retrieval, predict a step's time and the judge's cost.

    Args:
        before: a judge or a retrieval service that is bad here already is not asked again.
    """
    gpu = None
    if facts is not None and not isinstance(cards, str):
        speed = card_speed(cards[0].name)
        gpu = gpu_seconds(config, facts, prompts.quantile(0.5), speed) if speed else None
    unfit = {finding.subject for finding in before if finding.level is Level.BAD}
    findings: list[Finding] = []
    if settings.task == "rewrite":
        findings += ask_baseline(settings, samples[0], needed=prompts.without_baseline > 0)
    judge, each = settings.judge, None
    if judge is not None and "judge" not in unfit:
        with bad_input_as("judge", findings):
            reached = judge_reach_findings(judge, os.environ)
            findings += reached
            if not refusals(reached):
                asked, each = ask_judge(settings, samples)
                findings += asked
    if "retrieval" not in unfit:
        judged = (judge_calls_a_step(config, judge), each.seconds) if judge and each else None
        findings += step_findings(config, settings, measure_retrieval(settings, samples), gpu, judged)
    if judge is not None:
        findings += judge_cost_findings(config, settings, samples[0], rows, each.cny if each else None)
    return findings


def data_findings(config: DictConfig, prompts: Prompts, settings: RewriterSettings | None) -> list[Finding]:
    """Look at the training prompts."""
    live = settings is not None and settings.tenant.baseline.url is not None
    return prompt_findings(config, prompts, live_baseline=live)
