"""What a recipe comes to, without data, model or service: the resolved configuration and its reward at work."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.checks.settings import (
    check_batches,
    check_frequencies,
    check_precision,
    check_reward_workers,
    check_settings,
)
from recipes.compose import compose_recipe, recipe_yaml
from reward.records.outcome import Evidence, Findings, Gated, Parts, Scored
from reward.records.sample import Candidates, Hit, Metadata, Sample
from reward.settings.recipe import RewriterSettings, TaskName
from reward.task import open_task


@dataclass(frozen=True)
class Trial:
    """A completion that a policy might write, and the rank at which the relevant passage is found with it."""

    what: str
    completion: str
    rank: int | None


PLAIN_RANK = 7  # of the relevant passage for the query alone
_QUERY = {"rewrite": "fish oil how take", "expansion": "how to configure oauth login"}
_BASELINE = "fish oil dosage"
TRIALS: dict[TaskName, tuple[Trial, ...]] = {
    "rewrite": (
        Trial("finds the passage first", "fish oil daily dosage with meals", 1),
        Trial("finds what the query finds", "fish oil how to take it", PLAIN_RANK),
        Trial("loses the passage", "oil paint techniques", None),
        Trial("is no query", "<|im_start|>assistant", None),
    ),
    "expansion": (
        Trial(
            "finds the passage first",
            "lex: oauth login client secret redirect\n"
            "lex: configure oauth callback token\n"
            "vec: how to set up oauth login with a client secret and a redirect address\n"
            "hyde: To configure oauth login, register the redirect address with the provider, store the client secret "
            "and verify the token on every request.",
            1,
        ),
        Trial(
            "fits any query",
            "lex: configure oauth login guide\nlex: configure oauth login tips\n"
            "vec: a comprehensive guide to configure oauth login step by step\n"
            "hyde: This comprehensive guide covers everything you need to know about oauth login.",
            PLAIN_RANK,
        ),
        Trial("repeats the query", "lex: configure oauth login\nvec: how to configure oauth login", PLAIN_RANK),
        Trial("loses the passage", "lex: bread oven crust flour\nvec: how do you bake bread with a crisp crust", None),
        Trial("has a line without a kind", "Here are the lines:\nlex: oauth login token", None),
    ),
}


def dry_run(name: str, overrides: list[str]) -> str:
    """Compose and check a recipe's settings; return it as YAML, then the reward of each of `TRIALS`.

    Raises:
        BadInput: the settings are impossible.
    """
    config = compose_recipe(name, overrides)
    settings = check_settings(name, config)
    check_batches(config)
    check_frequencies(config)
    check_precision(config)
    shown = [recipe_yaml(config)]
    if settings is not None:
        check_reward_workers(settings, config)
    if settings is not None and settings.task in TRIALS:
        shown += ["# The reward of this recipe, on completions made up for the purpose:", *reward_lines(settings)]
    return "\n".join(shown)


def reward_lines(settings: RewriterSettings) -> list[str]:
    """Score the trials of the recipe's task; one line each, as comments of YAML."""
    task = open_task(settings)
    query = _QUERY[settings.task]
    sample = Sample(
        sample_id="dry_run",
        original_query=query,
        metadata=Metadata(tenant_id=settings.tenant.tenant_id),
        candidates=Candidates(baseline=_BASELINE),
        relevant_doc_ids=("relevant",),
    )
    lines = [f"# query: {query}; the relevant passage is at rank {PLAIN_RANK}"]
    for trial in TRIALS[settings.task]:
        text = task.parse(trial.completion)
        outcome = task.gate(sample, text) or task.combine(sample, text, _found(trial), step=1)
        if isinstance(outcome, Scored):
            rank = trial.rank or "none"
            lines.append(f"# {outcome.reward:+.3f}  {trial.what}: rank {rank}{_terms(outcome.parts)}")
        elif isinstance(outcome, Gated):
            lines.append(f"# {outcome.reward:+.3f}  {trial.what}: gated, {outcome.reason.value} ({outcome.detail})")
        else:
            lines.append(f"# no reward  {trial.what}: {outcome.detail}")
    return lines


def _terms(parts: Parts) -> str:
    terms = [] if parts.expansion is None else [f", rules {parts.expansion.rules:.2f}"]
    if parts.retrieval is not None:
        terms.append(f", retrieval {parts.retrieval:+.2f}")
    return "".join(terms)


def _found(trial: Trial) -> Findings:
    def evidence(rank: int | None) -> Evidence:
        score = 0.9 if rank == 1 else 0.5 if rank else 0.1
        return Evidence(top_hits=(Hit(content="", reranker_score=score, doc_id="any"),), rank=rank, origin="dry run")

    return Findings(
        baseline_rewrite=_BASELINE,
        policy=evidence(trial.rank),
        baseline=evidence(PLAIN_RANK),
        plain=evidence(PLAIN_RANK),
    )
