"""Asks the tenant's retrieval service what a rollout will ask it, before a trainer starts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import DictConfig
from pydantic import ValidationError

from reward.records.call import ServiceFailure
from reward.records.expansion import KINDS, Line
from reward.records.files import BadInput, first_problem
from reward.records.sample import Sample
from reward.rewrite.combination import unusable
from reward.rollouts.reranker_pin import RerankerPin
from reward.services.rag_client import RagAnswer, RagClient
from reward.services.tenant_services import evidence_of
from reward.settings.recipe import RewriterSettings


def check_rag(
    settings: RewriterSettings, config: DictConfig, output: Path | None = None
) -> tuple[int, str, tuple[str, ...]]:
    """Return how many hits the retrieval service has for the first training query, the reranker that judges where no
    relevant passage is known, "" where all are, and the kinds of typed line that the service does not search with.

    Args:
        output: of the run, which may have pinned a reranker already.

    Raises:
        BadInput: the service does not answer, does not know the tenant, finds nothing at all, or its hits cannot be
            scored: without ids where the relevant passages are known by theirs; where they are not, without scores, or
            with scores that measure words in common, or of another reranker than the one pinned.
    """
    samples = samples_to_try(Path(config.data.train_files))
    tenant, reward = settings.tenant, settings.reward

    async def ask() -> list[RagAnswer | ServiceFailure]:
        client = RagClient(tenant.rag, tenant.tenant_id)
        try:
            return [
                (
                    await client.retrieve(
                        sample.original_query,
                        sample.context,
                        rewritten_query=sample.original_query,
                        top_k=reward.top_k,
                        score_threshold=0.0,
                        expansions=lines_to_try(settings, sample),
                    )
                )[0]
                for sample in samples
            ]
        finally:
            await client.aclose()

    answers = asyncio.run(ask())
    where = f"rewriter.tenant.rag: {tenant.rag.url} (tenant {tenant.tenant_id})"
    pinned = RerankerPin(output, reward.reranker).reranker if output else reward.reranker
    hits, judge = [], ""
    for sample, answer in zip(samples, answers, strict=True):
        if isinstance(answer, ServiceFailure):
            raise BadInput(f"{where}: {answer.reason}")
        if not answer.hits:
            raise BadInput(f"{where}: the knowledge base returns no hit for {sample.original_query!r}")
        # A rollout over such hits would abstain, every one of them.
        query = sample.original_query
        evidence = evidence_of(answer.hits, sample.relevant_doc_ids, query, query, answer.origin)
        if why := unusable(reward, sample, [evidence]):
            raise BadInput(f"{where}: {why}")
        if not sample.relevant_doc_ids:
            judge = answer.origin
            if pinned and judge != pinned:
                raise BadInput(f"{where}: {judge or 'nothing'} judges the hits, but {pinned} is pinned for this run")
        hits.append(len(answer.hits))
    return hits[0], judge, answers[0].unsearched if isinstance(answers[0], RagAnswer) else ()


def lines_to_try(settings: RewriterSettings, sample: Sample) -> list[Line]:
    """Return typed lines to ask with, one of each kind, where the task sends such lines to the service."""
    if settings.task != "expansion":
        return []
    return [Line(kind, sample.original_query[:200]) for kind in KINDS]


def samples_to_try(path: Path) -> list[Sample]:
    """Read the first sample of an RL parquet, and the first without known passages: the two are scored differently."""
    first = first_sample(path)
    if not first.relevant_doc_ids:
        return [first]
    for batch in pq.ParquetFile(path).iter_batches(columns=["extra_info"]):
        for row in batch["extra_info"].to_pylist():
            sample = Sample.from_extra_info(row)
            if not sample.relevant_doc_ids:
                return [first, sample]
    return [first]


def samples_of(path: Path, most: int = 8) -> list[Sample]:
    """Read the first samples of an RL parquet."""
    rows = next(pq.ParquetFile(path).iter_batches(most, columns=["extra_info"]))["extra_info"].to_pylist()
    return [Sample.from_extra_info(row) for row in rows]


def first_sample(path: Path) -> Sample:
    """The sample of an RL parquet's first row.

    Raises:
        BadInput: the row does not hold one.
    """
    try:
        row = pq.ParquetFile(path).read_row_group(0, columns=["extra_info"]).slice(0, 1).to_pylist()[0]
        return Sample.from_extra_info(row["extra_info"])
    except (KeyError, TypeError):
        raise BadInput(f"{path}: row 1: extra_info.sample is missing; build it with data_prep.build_rl") from None
    except ValidationError as error:
        raise BadInput(f"{path}: row 1: extra_info.sample: {first_problem(error)}") from None
