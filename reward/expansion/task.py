"""Query expansion as a task (`reward.task.Task`): typed lines compete with the plain query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reward.expansion import formula
from reward.expansion.metrics import rollout_fields, step_metrics
from reward.expansion.parser import parse
from reward.expansion.rules import score
from reward.records.call import FailureKind
from reward.records.outcome import Abstained, AbstainReason, Findings, Gated, Rollout, Scored
from reward.records.request import AskExpansion, AskRetrieval, Request
from reward.records.sample import Sample
from reward.rewrite.combination import unusable
from reward.settings.expansion import ExpansionSettings
from reward.settings.recipe import RewardSettings


class ExpansionTask:
    """Scores typed lines by rules and, under `rules-v2`, by what they gain over the plain query's retrieval.

    A gated completion has reward 0 under `rules-v1`, `reward.gate_floor` under `rules-v2`: below every expansion that
    searches.
    """

    def __init__(self, reward: RewardSettings, settings: ExpansionSettings):
        self._reward, self._settings = reward, settings
        self._retrieves = settings.preset == "rules-v2" and settings.weight_retrieval > 0

    def parse(self, completion: str) -> str:
        return completion.strip()

    def gate(self, sample: Sample, text: str) -> Gated | None:
        scored = score(sample.original_query, parse(text), self._settings.preset)
        if scored.gate is None:
            return None
        floor = 0.0 if self._settings.preset == "rules-v1" else self._reward.gate_floor
        return Gated(reward=floor, reason=scored.gate, detail=scored.deductions[0])

    def requests(self, sample: Sample, text: str, findings: Findings) -> dict[str, Request]:
        if not self._retrieves:
            return {}
        needed: dict[str, Request] = {
            "policy": AskExpansion(parse(text).lines),
            "plain": AskRetrieval(sample.original_query),
        }
        return {field: request for field, request in needed.items() if getattr(findings, field) is None}

    def combine(self, sample: Sample, text: str, findings: Findings, step: int) -> Scored | Gated | Abstained:
        scored = score(sample.original_query, parse(text), self._settings.preset)
        points = dict(scored.parts)
        if not self._retrieves:
            return formula.reward_v1(scored.total, points)
        policy, plain = findings.policy, findings.plain
        if policy is None or plain is None:
            raise ValueError("a retrieval is missing")
        if (why := unusable(self._reward, sample, (policy, plain))) is not None:
            return Abstained(reason=AbstainReason.RAG, failure=FailureKind.MALFORMED, detail=why)
        return formula.reward_v2(
            scored.total,
            points,
            policy,
            plain,
            is_judged=bool(sample.relevant_doc_ids),
            weight_retrieval=self._settings.weight_retrieval,
            recited=max(0, policy.copied_run - self._reward.recital.free),
            recital_penalty=self._reward.recital.penalty,
        )

    def resume(self, rollouts: Iterable[Rollout]) -> None:
        """Keep no state."""

    def fields(self, rollout: Rollout) -> dict[str, float]:
        return rollout_fields(rollout)

    def metrics(self, rollouts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        return step_metrics(rollouts, self._reward.policy_label)
