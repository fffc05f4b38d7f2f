"""Scores honest rewrites and attacks with the real `reward.scorer.Scorer`, over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, get_args

from benchmarks.integrity_runs.attacks import KINDS
from benchmarks.integrity_runs.case import Kind, attack
from benchmarks.integrity_runs.metrics import Contest
from benchmarks.integrity_runs.services import PATIENCE
from benchmarks.integrity_runs.suite import Prompt, TenantSuite
from reward.records.outcome import Abstained, Gated, Rollout, Scored
from reward.scorer import Scorer
from reward.settings.recipe import RewardSettings, RewriterSettings
from reward.task import open_task

FORMULAS: tuple[str, ...] = get_args(RewardSettings.model_fields["formula"].annotation)
_AT_ONCE = 16
_STEP = 10_000  # beyond all shaping


@dataclass(frozen=True)
class Attacked:
    """A prompt and the text of every kind of attack that applies to it."""

    suite: TenantSuite
    prompt: Prompt
    attacks: Mapping[str, str]

    @property
    def texts(self) -> list[str]:
        """Everything that is scored, each text once: attacks, honest rewrites, the plain query, the baseline."""
        sample = self.prompt.sample
        return list(
            dict.fromkeys(
                (*self.prompt.honest, sample.original_query, sample.candidates.baseline, *self.attacks.values())
            )
        )


def attack_all(suites: Iterable[TenantSuite], seed: int) -> list[Attacked]:
    attacked = []
    for suite in suites:
        for prompt in suite.prompts:
            texts = {kind.name: attack(kind, prompt, suite, seed) for kind in KINDS}
            attacked.append(Attacked(suite, prompt, {name: text for name, text in texts.items() if text}))
    return attacked


@dataclass
class Scores:
    """Every rollout of one run of the scorer, by prompt and text."""

    formula: str
    knows_passages: bool
    rollouts: dict[tuple[str, str], Rollout] = field(default_factory=dict)

    def rollout(self, attacked: Attacked, text: str) -> Rollout:
        return self.rollouts[attacked.prompt.sample.sample_id, text]

    def reward(self, attacked: Attacked, text: str) -> float:
        """
        Raises:
            RuntimeError: it abstained; a benchmark without its services says nothing.
        """
        outcome = self.rollout(attacked, text).outcome
        if isinstance(outcome, Abstained):
            raise RuntimeError(f"a rollout abstained: {outcome.reason.value} {outcome.detail}")
        return outcome.reward

    def retrieval_term(self, attacked: Attacked, text: str) -> float | None:
        """What retrieval pays; None where a gate closed or the rollout abstained."""
        outcome = self.rollout(attacked, text).outcome
        return outcome.parts.retrieval if isinstance(outcome, Scored) else None

    def has_abstained(self, attacked: Attacked, text: str) -> bool:
        return isinstance(self.rollout(attacked, text).outcome, Abstained)

    def is_gated(self, attacked: Attacked, text: str) -> bool:
        return isinstance(self.rollout(attacked, text).outcome, Gated)

    def contests(self, attacked: Sequence[Attacked], kind: Kind, ranks: Scores) -> list[Contest]:
        """One contest for each prompt that the kind applies to.

        Args:
            ranks: scores with known passages and without gates, which tell where there is head-room.
        """
        return [
            Contest(
                attack=self.reward(one, one.attacks[kind.name]),
                honest=tuple(self.reward(one, text) for text in one.prompt.honest),
                has_headroom=ranks.has_headroom(one),
            )
            for one in attacked
            if kind.name in one.attacks
        ]

    def has_headroom(self, attacked: Attacked) -> bool:
        """Neither the baseline's rewrite nor the plain query puts a relevant passage first."""
        sample = attacked.prompt.sample
        found = (self.rollout(attacked, text).policy for text in (sample.original_query, sample.candidates.baseline))
        return all(evidence is not None and evidence.rank != 1 for evidence in found)

    def honest_gain(self, attacked: Attacked) -> bool:
        """Every honest rewrite puts a relevant passage higher than the plain query does."""
        plain = self._depth(attacked, attacked.prompt.sample.original_query)
        return all(self._depth(attacked, text) < plain for text in attacked.prompt.honest)

    def _depth(self, attacked: Attacked, text: str) -> float:
        evidence = self.rollout(attacked, text).policy
        return inf if evidence is None or evidence.rank is None else evidence.rank


def settings_of(
    suite: TenantSuite, url: str, folder: Path, formula: str, judge_url: str | None = None, *, lexical: bool = False
) -> RewriterSettings:
    """The `rewriter` node for one tenant.

    Args:
        lexical: hits are scored by their words; where training on such scores needs leave, it is given.
    """
    tenant = suite.tenant.model_dump(mode="json")
    tenant["rag"] |= {"url": url, "max_concurrency": _AT_ONCE, "timeout": PATIENCE}
    reward: dict[str, Any] = {"formula": formula}
    if lexical and "accept_lexical" in RewardSettings.model_fields:
        reward["accept_lexical"] = True
    judge = None
    if judge_url is not None:
        judge = {
            "model": "key",
            "base_url": judge_url,
            "max_concurrency": _AT_ONCE,
            "response_format": "json_schema",
            "baseline_votes": 1,
            "price": {"currency": "CNY", "input": 0, "cached_input": 0, "output": 0},
        }
    return RewriterSettings.model_validate(
        {
            "tenant": tenant,
            "reward": reward,
            "judge": judge,
            "ledger": {"path": str(folder / "ledger.sqlite"), "run_id": "integrity"},
        }
    )


def score_all(
    attacked: Sequence[Attacked],
    make_settings: Callable[[TenantSuite], RewriterSettings],
    *,
    formula: str,
    knows_passages: bool,
    texts: Callable[[Attacked], Sequence[str]] = lambda one: one.texts,
) -> Scores:
    """Score the texts of every prompt.

    Args:
        make_settings: the settings of a tenant.
        knows_passages: False: the samples lose their relevant passages.
    """
    scores = Scores(formula, knows_passages)

    async def score_tenant(suite: TenantSuite) -> None:
        scorer, slots = Scorer(make_settings(suite)), asyncio.Semaphore(_AT_ONCE)

        async def score(prompt: Prompt, text: str) -> None:
            sample = prompt.sample if knows_passages else prompt.sample.model_copy(update={"relevant_doc_ids": ()})
            async with slots:
                scoring = await scorer.score(sample, text, _STEP)
            scores.rollouts[prompt.sample.sample_id, text] = scoring.rollout

        try:
            own = [one for one in attacked if one.suite is suite]
            await asyncio.gather(*(score(one.prompt, text) for one in own for text in texts(one)))
        finally:
            await scorer.aclose()

    for suite in {id(one.suite): one.suite for one in attacked}.values():
        asyncio.run(score_tenant(suite))
    return scores


def microseconds_per_gate(
    attacked: Sequence[Attacked], make_settings: Callable[[TenantSuite], RewriterSettings]
) -> float:
    """Mean time that the gates take for a text, over all of the suite's texts."""
    tasks = {id(one.suite): open_task(make_settings(one.suite)) for one in attacked}
    work = [(tasks[id(one.suite)], one.prompt.sample, text) for one in attacked for text in one.texts]
    started = time.perf_counter()
    for task, sample, text in work:
        task.gate(sample, task.parse(text))
    return (time.perf_counter() - started) / len(work) * 1e6
