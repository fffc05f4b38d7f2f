"""Query rewriting as a task (`reward.task.Task`): the policy's rewrite competes with the deployed rewriter's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reward.records.outcome import Abstained, Findings, Gated, Rollout, Scored
from reward.records.request import AskBaseline, AskJudge, AskRetrieval, Request
from reward.records.rewrite_pair import texts_of, words_of
from reward.records.sample import Sample
from reward.rewrite.combination import check_text, combine
from reward.rewrite.metrics import rollout_fields, step_metrics
from reward.rewrite.shaping import RECENT, AdaptiveShaping
from reward.settings.recipe import RewardSettings
from reward.text.terms import Lexicon


class RewriteTask:
    """Scores one line of text, or a text for each channel (`RewritePair`), by what it retrieves, and by a judge where
    there is one.

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
        # Each text of a pair is a rewrite: the first that fails a gate closes both.
        gated = (check_text(self._settings, self._lexicon_of(sample), sample, one) for one in texts_of(text))
        return next((one for one in gated if one is not None), None)

    def requests(self, sample: Sample, text: str, findings: Findings) -> dict[str, Request]:
        # Everything else is compared with the baseline's rewrite.
        if not findings.baseline_rewrite:
            return {"baseline_rewrite": AskBaseline()}
        needed: dict[str, Request] = {
            "policy": AskRetrieval(text),
            "baseline": AskRetrieval(findings.baseline_rewrite),
        }
        if self._settings.formula == "v3":
            needed["plain"] = AskRetrieval(sample.original_query)
        if self._has_judge:
            needed["judgement"] = AskJudge(text, findings.baseline_rewrite)
        return {field: request for field, request in needed.items() if getattr(findings, field) is None}

    def combine(self, sample: Sample, text: str, findings: Findings, step: int) -> Scored | Gated | Abstained:
        outcome = combine(self._settings, sample, words_of(text), findings)
        # Validation is not shaped: its rewards are compared from step to step.
        if self._shaping is None or not isinstance(outcome, Scored) or sample.metadata.split != "train":
            return outcome
        return self._shaping.shape(outcome, step)

    def resume(self, rollouts: Iterable[Rollout]) -> None:
        if self._shaping is None:
            return
        # Shaping compares with base rewards: of the last few, each is computed again.
        trained = (r for r in rollouts if isinstance(r.outcome, Scored) and r.sample.metadata.split == "train")
        for rollout in deque(trained, maxlen=RECENT):
            self.combine(rollout.sample, self.parse(rollout.completion), rollout, rollout.step)

    def fields(self, rollout: Rollout) -> dict[str, float]:
        return rollout_fields(rollout)

    def metrics(self, rollouts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        labels = self._settings.policy_label, self._settings.baseline_label
        return step_metrics(rollouts, *labels)
