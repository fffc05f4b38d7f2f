"""Scores one rollout: `(Sample, completion, step) -> Outcome`, with every retrieval done once.

The scorer lives in one event loop. Identical retrievals are answered from a cache or join the call in flight; a
failed call is forgotten, so that the next rollout tries again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from reward import formulas
from reward.baseline import BaselineClient
from reward.gates import check_gates, normalise
from reward.http_calls import ServiceFailure
from reward.rag_client import RagClient
from reward.records import Abstained, AbstainReason, Context, GateReason, Hit, Outcome, Sample
from reward.settings import RewriterSettings

CACHED_RETRIEVALS = 100_000


@dataclass(frozen=True)
class Evidence:
    """What is kept of one retrieval: enough for every formula, small enough to cache by the hundred thousand."""

    top_hits: tuple[Hit, ...]
    rank: int | None

    @property
    def top1(self) -> float:
        return self.top_hits[0].relevance if self.top_hits else 0.0


@dataclass(frozen=True)
class Scoring:
    """An outcome and what it took: retrievals asked for, and how many of them needed no call of their own."""

    outcome: Outcome
    lookups: int
    cache_hits: int

    @property
    def rag_calls(self) -> int:
        return self.lookups - self.cache_hits


class Scorer:
    """Use it from a single event loop; close it with `aclose`."""

    def __init__(self, settings: RewriterSettings):
        self._tenant, self._reward = settings.tenant, settings.reward
        self._rag = RagClient(settings.tenant.rag, settings.tenant.tenant_id)
        self._baseline = BaselineClient(settings.tenant.baseline, settings.tenant.tenant_id)
        self._retrievals: LRUCache[tuple[Any, ...], asyncio.Task[Evidence | ServiceFailure]] = LRUCache(
            CACHED_RETRIEVALS
        )
        self._rewrites: dict[tuple[str, Context], asyncio.Task[str | ServiceFailure]] = {}
        self._recent: deque[float] = deque(maxlen=100)

    async def score(self, sample: Sample, completion: str, step: int) -> Scoring:
        """Score a completion against the baseline's rewrite of the same sample.

        Args:
            completion: the policy's text as decoded, special tokens removed.
            step: the trainer's step, from 1.
        """
        rewrite = completion.strip()
        # v1 has no gates: an empty rewrite simply finds nothing.
        gates = self._reward.gates if self._reward.formula == "v2" else ()
        gated = check_gates(
            sample,
            rewrite,
            gates={*gates, GateReason.EMPTY} if gates else (),
            cap=self._reward.length.cap,
            protected_terms=self._tenant.protected_terms,
            floor=self._reward.gate_floor,
        )
        if gated is not None:
            return Scoring(gated, 0, 0)
        baseline_rewrite = await self._baseline_rewrite(sample)
        if isinstance(baseline_rewrite, ServiceFailure):
            return Scoring(Abstained(reason=AbstainReason.BASELINE, detail=baseline_rewrite.reason), 0, 0)
        (policy_task, policy_known), (baseline_task, baseline_known) = (
            self._retrieve(sample, rewrite),
            self._retrieve(sample, baseline_rewrite),
        )
        cache_hits = policy_known + baseline_known
        # Shielded: a cancelled rollout must not cancel a retrieval that its siblings wait for.
        policy, baseline = await asyncio.gather(asyncio.shield(policy_task), asyncio.shield(baseline_task))
        if isinstance(policy, ServiceFailure) or isinstance(baseline, ServiceFailure):
            failure = policy if isinstance(policy, ServiceFailure) else baseline
            detail = failure.reason if isinstance(failure, ServiceFailure) else ""
            return Scoring(Abstained(reason=AbstainReason.RAG, detail=detail), 2, cache_hits)
        return Scoring(self._combine(sample, rewrite, policy, baseline, step), 2, cache_hits)

    def _combine(self, sample: Sample, rewrite: str, policy: Evidence, baseline: Evidence, step: int) -> Outcome:
        reward = self._reward
        if reward.formula == "v1":
            scored = formulas.reward_v1(formulas.retrieval_term_v1(policy.top_hits, baseline.top_hits), judge=None)
            if reward.adaptive_shaping and sample.metadata.split == "train":
                self._recent.append(scored.reward)
                mean = sum(self._recent) / len(self._recent)
                scored = formulas.shape(scored, formulas.shaping_factor(step, scored.reward, mean))
        else:
            if sample.relevant_doc_ids:
                term = formulas.rank_term_v2(policy.rank, baseline.rank)
            else:
                term = formulas.quality_term_v2(policy.top_hits, baseline.top_hits)
            scored = formulas.reward_v2(
                term,
                judge=None,
                weight_retrieval=reward.weight_retrieval,
                weight_judge=reward.weight_judge,
                excess_length=max(0, len(rewrite) - reward.length.target),
                length_penalty=reward.length.penalty,
                is_copy=normalise(rewrite) == normalise(sample.original_query),
                retrieves_best=policy.rank == 1,
            )
        evidence = {
            "policy_top1": policy.top1,
            "baseline_top1": baseline.top1,
            "policy_rank": policy.rank,
            "baseline_rank": baseline.rank,
        }
        return scored.model_copy(update={"parts": scored.parts.model_copy(update=evidence)})

    async def _baseline_rewrite(self, sample: Sample) -> str | ServiceFailure:
        key = (sample.original_query, sample.context)
        task = self._rewrites.get(key)
        if task is None:
            task = self._rewrites[key] = asyncio.ensure_future(self._baseline.rewrite(sample))
        rewrite = await asyncio.shield(task)
        if isinstance(rewrite, ServiceFailure):
            self._rewrites.pop(key, None)
        return rewrite

    def _retrieve(self, sample: Sample, rewrite: str) -> tuple[asyncio.Task[Evidence | ServiceFailure], bool]:
        """The retrieval of `rewrite` for `sample` and whether it was already known or under way."""
        # Not the sample's id: exports number their rows from 1 each.
        key = (sample.original_query, sample.context, sample.relevant_doc_ids, rewrite)
        task = self._retrievals.get(key)
        if task is not None:
            return task, True
        task = self._retrievals[key] = asyncio.ensure_future(self._retrieve_once(sample, rewrite))

        def forget_failure(done: asyncio.Task[Evidence | ServiceFailure]) -> None:
            if done.cancelled() or done.exception() or isinstance(done.result(), ServiceFailure):
                self._retrievals.pop(key, None)

        task.add_done_callback(forget_failure)
        return task, False

    async def _retrieve_once(self, sample: Sample, rewrite: str) -> Evidence | ServiceFailure:
        if not rewrite:
            return Evidence((), None)
        answer = await self._rag.retrieve(
            sample.original_query,
            sample.context,
            rewritten_query=rewrite,
            top_k=self._reward.top_k,
            score_threshold=0.0,
        )
        if isinstance(answer, ServiceFailure):
            return answer
        return _evidence(answer.hits, sample.relevant_doc_ids)

    async def aclose(self) -> None:
        await self._rag.aclose()
        await self._baseline.aclose()


def _evidence(hits: Sequence[Hit], relevant: Sequence[str]) -> Evidence:
    top = tuple(hit.model_copy(update={"content": ""}) for hit in hits[:3])
    return Evidence(top, formulas.relevant_rank(hits, relevant))
