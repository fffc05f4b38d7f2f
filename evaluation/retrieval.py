"""Retrieve live with every system's rewrites, and say which samples can be compared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evaluation.metrics import ranked_doc_ids
from evaluation.systems import Rewrite
from reward.records.call import ServiceFailure
from reward.records.outcome import relevant_rank
from reward.records.sample import Sample
from reward.services.rag_client import RagClient
from reward.settings.recipe import TenantSettings

TOP_K = 100


@dataclass(frozen=True)
class Found:
    """What a rewrite retrieved. `rank`: 1-based, of the first relevant passage; `top1`: score of the first hit;
    `scorer`: the reranker that the service names; `origin`: what gave the hits their scores (`RagAnswer.origin`)."""

    doc_ids: tuple[str, ...]
    rank: int | None
    top1: float
    scorer: str = ""
    origin: str = ""


RetrievalResult = Found | ServiceFailure


async def retrieve_rewrites(
    samples: Sequence[Sample],
    rewrites: Mapping[str, Sequence[Rewrite]],
    tenant: TenantSettings,
    on_answer: Callable[[], None] = lambda: None,
) -> dict[str, list[RetrievalResult]]:
    """Retrieve with every rewrite, with equal rewrites of one sample once; return system -> result for each sample.

    An empty rewrite finds nothing and is not sent: the service would take it for none and rewrite by itself. A
    failed rewrite stays a failure.

    Args:
        on_answer: called after every answer, for a progress bar.
    """
    client = RagClient(tenant.rag, tenant.tenant_id)

    async def retrieve(sample: Sample, rewrite: Rewrite) -> RetrievalResult:
        if isinstance(rewrite, ServiceFailure):
            return rewrite
        if not rewrite.strip():
            return Found((), None, 0.0)
        answer, _ = await client.retrieve(
            sample.original_query, sample.context, rewritten_query=rewrite, top_k=TOP_K, score_threshold=0.0
        )
        on_answer()
        if isinstance(answer, ServiceFailure):
            return answer
        hits = answer.hits[:TOP_K]
        return Found(
            tuple(ranked_doc_ids(hits)),
            relevant_rank(hits, sample.relevant_doc_ids),
            hits[0].relevance if hits else 0.0,
            answer.reranker,
            answer.origin,
        )

    # One task for each different rewrite of a sample: systems that agree share its result.
    try:
        tasks: dict[tuple[int, Rewrite], asyncio.Task[RetrievalResult]] = {}
        for texts in rewrites.values():
            for index, (sample, text) in enumerate(zip(samples, texts, strict=True)):
                if (index, text) not in tasks:
                    tasks[index, text] = asyncio.create_task(retrieve(sample, text))
        await asyncio.gather(*tasks.values())
    finally:
        await client.aclose()
    return {name: [tasks[key].result() for key in enumerate(texts)] for name, texts in rewrites.items()}


def failure_of(sample_index: int, answers: Mapping[str, Sequence[RetrievalResult]]) -> str | None:
    """Say why a sample cannot be compared: the first failure among all systems' results, None when all answered."""
    for name, system_answers in answers.items():
        answer = system_answers[sample_index]
        if isinstance(answer, ServiceFailure):
            return f"{name}: {answer.reason}"
    return None
