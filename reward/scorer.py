"""Scores one rollout: `(Sample, completion, step) -> Rollout`, with every call made once.

The scorer lives in one event loop. Every call goes through `reward.ledger.calls`: known answers come from the ledger,
identical calls under way are joined, a failed call is forgotten, so that the next rollout tries again.
"""

from __future__ import annotations

import time
from asyncio import gather
from collections import deque
from dataclasses import dataclass
from typing import Any

from reward.judge.judge import Judge, Judged
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import Answer, FailureKind, ServiceFailure
from reward.records.outcome import Abstained, AbstainReason, Evidence, Outcome, Rollout, Scored
from reward.records.sample import Sample
from reward.rewrite import formulas
from reward.rewrite.combination import check_text, combine
from reward.services.tenant_services import TenantServices
from reward.settings.recipe import RewriterSettings


@dataclass(frozen=True)
class Scoring:
    """A scored rollout and every call it asked for; `started` and `ended` are seconds since the epoch."""

    rollout: Rollout
    answers: tuple[Answer, ...]
    started: float
    ended: float


class Scorer:
    """Use it from a single event loop; close it with `aclose`.

    Raises:
        BadInput: the ledger cannot be opened, or a variable that holds an API key is not set.
    """

    def __init__(self, settings: RewriterSettings):
        self._tenant, self._reward = settings.tenant, settings.reward
        self._ledger = Ledger(settings.ledger)
        self.calls = Calls(self._ledger)
        self._services = TenantServices(settings.tenant, settings.reward.top_k, self.calls)
        self.judge: Judge | None = None
        if settings.judge is not None:
            self.judge = Judge(settings.judge, settings.tenant, settings.ledger.cny_per_usd, self.calls)
        self._recent: deque[float] = deque(maxlen=100)

    async def score(self, sample: Sample, completion: str, step: int) -> Scoring:
        """Score a completion against the baseline's rewrite of the same sample.

        Args:
            completion: the policy's text as decoded, special tokens removed.
            step: the trainer's step, from 1.
        """
        started, rewrite = time.time(), completion.strip()
        answers: list[Answer] = []

        def scoring(outcome: Outcome, **found: Any) -> Scoring:
            now = time.time()
            rollout = Rollout(step=step, time=now, sample=sample, completion=completion, outcome=outcome, **found)
            return Scoring(rollout, tuple(answers), started, now)

        gated = check_text(self._reward, self._tenant.protected_terms, sample, rewrite)
        if gated is not None:
            return scoring(gated)
        priority = _priority(sample)
        baseline_rewrite = await self._baseline_rewrite(sample, priority, answers)
        if isinstance(baseline_rewrite, ServiceFailure):
            return scoring(_abstained(AbstainReason.BASELINE, baseline_rewrite))
        policy, baseline, judged = await gather(
            self._retrieve(sample, rewrite, priority, answers),
            self._retrieve(sample, baseline_rewrite, priority, answers),
            self._judge(sample, rewrite, baseline_rewrite, priority),
        )
        if judged is not None:
            answers += judged.answers
        judgement = judged.judgement if judged is not None else None
        found: dict[str, Any] = {
            "baseline_rewrite": baseline_rewrite,
            "policy": _found(policy),
            "baseline": _found(baseline),
            "judgement": None if isinstance(judgement, ServiceFailure) else judgement,
        }
        for evidence in (policy, baseline):
            if isinstance(evidence, ServiceFailure):
                return scoring(_abstained(AbstainReason.RAG, evidence), **found)
        if isinstance(judgement, ServiceFailure):
            return scoring(_abstained(AbstainReason.JUDGE, judgement), **found)
        assert isinstance(policy, Evidence) and isinstance(baseline, Evidence)
        outcome = self._shaped(combine(self._reward, sample, rewrite, policy, baseline, judgement), sample, step)
        return scoring(outcome, **found)

    def _shaped(self, outcome: Outcome, sample: Sample, step: int) -> Outcome:
        adaptive = self._reward.formula == "v1" and self._reward.adaptive_shaping
        if not adaptive or not isinstance(outcome, Scored) or sample.metadata.split != "train":
            return outcome
        self._recent.append(outcome.reward)
        mean = sum(self._recent) / len(self._recent)
        return formulas.shape(outcome, formulas.shaping_factor(step, outcome.reward, mean))

    async def _judge(self, sample: Sample, rewrite: str, baseline_rewrite: str, priority: float) -> Judged | None:
        if self.judge is None:
            return None
        return await self.judge.judge(sample, rewrite, baseline_rewrite, priority=priority)

    async def _baseline_rewrite(self, sample: Sample, priority: float, answers: list[Answer]) -> str | ServiceFailure:
        if sample.candidates.baseline:
            return sample.candidates.baseline
        answer = await self._services.rewrite(sample, priority=priority)
        answers.append(answer)
        return answer.value if isinstance(answer.value, ServiceFailure) else str(answer.value["rewritten_query"])

    async def _retrieve(
        self, sample: Sample, rewrite: str, priority: float, answers: list[Answer]
    ) -> Evidence | ServiceFailure:
        if not rewrite:
            return Evidence()
        answer = await self._services.retrieve(sample, rewrite, priority=priority)
        answers.append(answer)
        return answer.value if isinstance(answer.value, ServiceFailure) else Evidence.model_validate(answer.value)

    async def aclose(self) -> None:
        await self._services.aclose()
        if self.judge is not None:
            await self.judge.aclose()
        self._ledger.close()


def _found(evidence: Evidence | ServiceFailure) -> Evidence | None:
    return None if isinstance(evidence, ServiceFailure) else evidence


def _priority(sample: Sample) -> float:
    """In [0, 1]: the worse the baseline did on a prompt, the more there is to learn, the sooner it is served."""
    top1 = sample.metadata.top1_score
    return 0.5 if top1 is None else 1.0 - min(max(top1, 0.0), 1.0)


def _abstained(reason: AbstainReason, failure: ServiceFailure) -> Abstained:
    if failure.kind is FailureKind.BUDGET_SPENT:
        reason = AbstainReason.BUDGET
    return Abstained(reason=reason, failure=failure.kind, detail=failure.reason)
