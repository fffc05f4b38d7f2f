"""Query rewriting as a task (`reward.task.Task`): the policy's rewrite competes with the deployed rewriter's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reward.records.outcome import Findings, Gated, Rollout, Scored
from reward.records.request import AskBaseline, AskJudge, AskRetrieval, Request
from reward.records.sample import Sample
from reward.rewrite.combination import check_text, combine
from reward.rewrite.metrics import rollout_fields, step_metrics
from reward.rewrite.shaping import AdaptiveShaping
from reward.settings.recipe import RewardSettings
from reward.text.terms import Lexicon


class RewriteTask:
    """Scores one line of text by what it retrieves, and by a judge where there is one.

    Args:
        lexicon_of: the lexicon of a sample's tenant.
        has_judge: whether a judge is asked about every rewrite that passes the gates.
    """

    def __init__(self, settings: RewardSettings, lexicon_of: Callable[[Sample], Lexicon], *, has_judge: bool):
        self._settings, self._lexicon_of, self._has_judge = settings, lexicon_of, has_judge
        self._shaping = AdaptiveShaping() if settings.formula == "v1" and settings.adaptive_shaping else None

    def parse(self, completion: str) -> str:
        return completion.strip()

    def gate(self, sample: Sample, text: str) -> Gated | None:
        # Formula v1 has no gates: the lexicon is not asked for.
        if self._settings.formula == "v1":
            return None
        return check_text(self._settings, self._lexicon_of(sample), sample, text)

    def requests(self, sample: Sample, text: str, findings: Findings) -> dict[str, Request]:
        # Everything else is compared with the baseline's rewrite.
        if not findings.baseline_rewrite:
            return {"baseline_rewrite": AskBaseline()}
        needed: dict[str, Request] = {
            "policy": AskRetrieval(text),
            "baseline": AskRetrieval(findings.baseline_rewrite),
        }
        if self._has_judge:
            needed["judgement"] = AskJudge(text, findings.baseline_rewrite)
        return {field: request for field, request in needed.items() if getattr(findings, field) is None}

    def combine(self, sample: Sample, text: str, findings: Findings, step: int) -> Scored | Gated:
        if findings.policy is None or findings.baseline is None:
            raise ValueError("a retrieval is missing")
        outcome = combine(self._settings, sample, text, findings.policy, findings.baseline, findings.judgement)
        # Validation is not shaped: its rewards are compared from step to step.
        if self._shaping is None or not isinstance(outcome, Scored) or sample.metadata.split != "train":
            return outcome
        return self._shaping.shape(outcome, step)

    def fields(self, rollout: Rollout) -> dict[str, float]:
        return rollout_fields(rollout)

    def metrics(self, rollouts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        labels = self._settings.policy_label, self._settings.baseline_label
        return step_metrics(rollouts, *labels)
