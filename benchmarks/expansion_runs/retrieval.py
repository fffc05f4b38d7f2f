"""What typed expansions bring a search: asked of the service itself, with and without them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rag_load_runs.service import serving
from evaluation.metrics import query_metrics, ranked_doc_ids
from evaluation.significance import bootstrap_difference, bootstrap_mean
from rag.learning.judged_queries import JudgedQueries, read_judged_queries
from reward.expansion.parser import Expansion
from reward.records.call import ServiceFailure
from reward.records.files import BadInput
from reward.records.sample import Context
from reward.services.rag_client import RagClient
from reward.settings.services import RagSettings

TENANT = "benchmark"
TOP_K = 10
MEASURES = ("mrr@10", "recall@10")
MOST_LINES = 8


def measure_retrieval(
    folder: Path,
    encoder: str | None,
    expansions: Mapping[str, Mapping[str, Expansion]],
    limit: int,
    seed: int,
    work: Path,
) -> list[dict[str, Any]]:
    """Search a BEIR set with the plain query and with each system's expansions, over the queries that it has.

    Args:
        encoder: folder of the dense channel's model, None for hashed vectors.
        expansions: system -> query's text -> its expansion; an expansion that is not valid searches as the plain query.
        limit: the most queries, in the order of their ids.
    """
    judged = read_judged_queries(folder)
    index, retriever = work / f"{folder.name}_index", ["--retriever", encoder or "hashing"]
    if not index.exists():
        command = [sys.executable, "-m", "rag.build_index", "--kb-dir", str(folder), "--out", str(index)]
        subprocess.run([*command, "--tenant", TENANT, *retriever], check=True, stdout=subprocess.DEVNULL)
    rows = []
    with serving(index, *retriever) as server:
        chosen = sorted(judged.texts)[:limit]
        plain = _metrics(asyncio.run(_ask(server.url, judged, chosen, {})), judged)
        rows.append(_row(folder.name, encoder, "plain query", chosen, plain, None, seed))
        for system, known in expansions.items():
            having = [query for query in sorted(judged.texts) if judged.texts[query] in known][:limit]
            if not having:
                rows.append({"set": folder.name, "system": system, "queries": 0, "why": "no recorded expansions"})
                continue
            lines = {query: known[judged.texts[query]] for query in having}
            without = _metrics(asyncio.run(_ask(server.url, judged, having, {})), judged)
            found = _metrics(asyncio.run(_ask(server.url, judged, having, lines)), judged)
            row = _row(folder.name, encoder, system, having, found, without, seed)
            rows.append(row | {"valid": sum(one.is_valid for one in lines.values()) / len(lines)})
    return rows


async def _ask(
    url: str, judged: JudgedQueries, queries: Sequence[str], lines: Mapping[str, Expansion]
) -> dict[str, list[str]]:
    client = RagClient(RagSettings(url=url, timeout=60), TENANT)

    async def one(query: str) -> list[str]:
        text, expansion = judged.texts[query], lines.get(query)
        typed = expansion.lines[:MOST_LINES] if expansion is not None and expansion.is_valid else ()
        answer, _ = await client.retrieve(
            text, Context(), rewritten_query=text, top_k=TOP_K, score_threshold=0.0, expansions=typed
        )
        if isinstance(answer, ServiceFailure):
            raise BadInput(f"{url}: {answer.reason}")
        return ranked_doc_ids(answer.hits)

    try:
        found = [await one(query) for query in queries]
    finally:
        await client.aclose()
    return dict(zip(queries, found, strict=True))


def _metrics(rankings: Mapping[str, Sequence[str]], judged: JudgedQueries) -> dict[str, dict[str, float]]:
    return query_metrics(rankings, judged.relevant)


def _row(
    name: str,
    encoder: str | None,
    system: str,
    queries: Iterable[str],
    found: Mapping[str, Mapping[str, float]],
    plain: Mapping[str, Mapping[str, float]] | None,
    seed: int,
) -> dict[str, Any]:
    order = list(queries)
    row: dict[str, Any] = {"set": name, "encoder": Path(encoder).name if encoder else "hashing", "system": system}
    row["queries"] = len(order)
    for measure in MEASURES:
        values = [found[query][measure] for query in order]
        row[measure] = round(sum(values) / len(values), 4)
        row[f"{measure} interval"] = [round(edge, 4) for edge in bootstrap_mean(values, seed=seed)]
        if plain is not None:
            before = [plain[query][measure] for query in order]
            row[f"{measure} plain"] = round(sum(before) / len(before), 4)
            gain, interval = bootstrap_difference(values, before, seed=seed)
            row[f"{measure} gain"] = round(gain, 4)
            row[f"{measure} gain interval"] = [round(edge, 4) for edge in interval]
    return row
