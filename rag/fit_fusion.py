"""Fit how a knowledge base's channels are fused, from judged queries or from clicks, and refuse what is not better.

    python -m rag.fit_fusion --index kb --tenant fivedoctors                     # from the clicks that the service kept
    python -m rag.fit_fusion --index kb --tenant fivedoctors --judged DIR       # from queries.jsonl and qrels.tsv

Fits the dense channel's part of the score, what a match of a question counts, and with `--reranker` the cross-encoder's
part of the order (`rag.retrieval.fusion`) on three fifths of the queries, and checks on the others against the weights
in force. They are kept only where nDCG@10 rises for sure (95 % bootstrap interval above 0), no other measure falls, and
no channel alone is better. A running service takes them up with the next request: its answers name them (`fusion`).

They hold for the embedder and tokenizer of the index that they were fitted on. An index of another one has the default
again, and the answers say so. `--dry-run` keeps nothing, `--forget` goes back to the default. The last line is JSON.
Exit code 0: kept; 1: refused; 2: the input cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from rag.catalogue.catalogue import Catalogue, stored_knowledge_base
from rag.catalogue.clicks import Clicks
from rag.catalogue.database import FILE, now
from rag.catalogue.records import KnowledgeBase
from rag.command import command
from rag.documents.records import IngestError
from rag.index.indexer import Indexer, OpenVersion, open_engine
from rag.learning.click_evidence import weigh_clicks
from rag.learning.fusion_fit import LEAST_QUERIES, OBJECTIVE, FusionFit, JudgedSearch, fit_fusion
from rag.learning.judged_queries import JudgedQueries, read_judged_queries
from rag.models.embedder import DEFAULT_RETRIEVER, EmbedderMaker, embedder_maker
from rag.models.reranker import Reranker, open_reranker
from rag.retrieval.fitted_fusion import FittedFusion, FusionInForce, fusion_in_force
from rag.retrieval.retriever import Retriever


@dataclass(frozen=True)
class Options:
    """What to fit (`index`, `tenant`, `kb_name`), from what (`judged`, else clicks from `since` on), with which models.
    `top_k`: candidates of each channel, as the service has them."""

    index: Path
    tenant: str
    kb_name: str
    judged: Path | None
    since: str
    retriever: str
    reranker: str | None
    top_k: int
    dry_run: bool
    forget: bool


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print the check, and keep the weights if they are better."""
    parser = argparse.ArgumentParser(
        prog="python -m rag.fit_fusion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True, help="data folder of the service; it may be running")
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--kb-name", "--kb_name", default="default")
    parser.add_argument("--judged", type=Path, metavar="DIR", help="BEIR folder: queries.jsonl, qrels.tsv")
    parser.add_argument("--since", default="", help="first day or time (UTC, ISO 8601) of the clicks that count")
    parser.add_argument("--retriever", default=DEFAULT_RETRIEVER, help="embedder of the index (default: %(default)s)")
    parser.add_argument("--reranker", help="cross-encoder of the service: its part of the order is fitted too")
    parser.add_argument("--top-k", "--top_k", type=int, default=30, help="the service's (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="keep nothing")
    parser.add_argument("--forget", action="store_true", help="go back to the default weights")
    options = Options(**vars(parser.parse_args(argv)))
    with stored_knowledge_base(options.index, options.tenant, options.kb_name) as (catalogue, kb):
        if options.forget:
            catalogue.keep_fusion(kb.id, "")
            print(f"{kb.tenant_id}/{kb.name}: default weights")
            return 0
        judged, source = _judged_queries(options, catalogue, kb)
        return asyncio.run(_fit(options, catalogue, kb, judged, source))


async def _fit(options: Options, catalogue: Catalogue, kb: KnowledgeBase, judged: JudgedQueries, source: str) -> int:
    # Search with every judged query once; fusing what was found again and again is cheap.
    reranker = open_reranker(options.reranker) if options.reranker else None
    try:
        with _copy_for_reading(catalogue, kb, embedder_maker(options.retriever)) as (copy, indexer):
            opened = indexer.open(kb)
            if opened is None:
                raise IngestError(f"{kb.tenant_id}/{kb.name}: no index that can be read: build it (rag.build_index)")
            searches = await _search(copy, indexer, kb, judged, reranker, options.top_k)
    finally:
        if reranker is not None:
            await reranker.aclose()
    before = _in_force(kb, opened, reranker)
    fit = fit_fusion(searches, before.weights)
    if fit is None:
        raise IngestError(
            f"{kb.tenant_id}/{kb.name}: {len(searches)} judged queries from {source}: too few to fit on some and check "
            f"on others ({LEAST_QUERIES} of each)"
        )

    # What is kept names everything that it holds for.
    change = fit.changes[OBJECTIVE]
    fitted = FittedFusion(
        weights=fit.weights,
        embedder_id=opened.version.recipe.embedder_id,
        tokenizer_id=opened.version.recipe.tokenizer_id,
        reranker_id=reranker.id if reranker else "",
        source=source,
        queries=fit.queries,
        held_out=fit.held_out,
        before=round(fit.means[OBJECTIVE][0], 4),
        after=round(fit.means[OBJECTIVE][1], 4),
        change=round(change.mean, 4),
        low=round(change.low, 4),
        high=round(change.high, 4),
        fitted_at=now(),
    )
    kept = not fit.refused and not options.dry_run
    if kept:
        catalogue.keep_fusion(kb.id, fitted.to_json())
    _report(kb, fit, source)
    in_force = _in_force(replace(kb, fusion=fitted.to_json()), opened, reranker) if kept else before
    print(f"{kb.tenant_id}/{kb.name}: {'refused: ' + fit.refused if fit.refused else 'better'}; {in_force.name}")
    print(json.dumps(_facts(fit, fitted, kept)))
    return 1 if fit.refused else 0


def _judged_queries(options: Options, catalogue: Catalogue, kb: KnowledgeBase) -> tuple[JudgedQueries, str]:
    """Return queries with their relevant passages, and where they are from.

    Raises:
        IngestError: the folder cannot be read, or nobody has clicked anything for sure.
    """
    if options.judged is not None:
        return read_judged_queries(options.judged), str(options.judged)
    answers: dict[str, list[str]] = {}
    for pair in weigh_clicks(Clicks(catalogue).read(kb.id, options.since)):
        if pair.label == "positive":
            answers.setdefault(pair.query, []).append(pair.passage_key)
    if not answers:
        raise IngestError(f"{kb.tenant_id}/{kb.name}: no click says for sure which passage answers: give --judged DIR")
    relevant = {query: tuple(keys) for query, keys in answers.items()}
    return JudgedQueries({query: query for query in answers}, relevant), "clicks"


async def _search(
    catalogue: Catalogue,
    indexer: Indexer,
    kb: KnowledgeBase,
    judged: JudgedQueries,
    reranker: Reranker | None,
    depth: int,
) -> list[JudgedSearch]:
    """
    Raises:
        ModelFailure: embedder or cross-encoder gave no usable answer: nothing is fitted on what is left.
    """
    retriever = Retriever(catalogue, indexer, depth=depth)
    searches = []
    console = Console(stderr=True)
    texts = track(judged.texts.items(), "searching", console=console, transient=True, disable=not console.is_terminal)
    for query, text in texts:
        candidates = await retriever.candidates(kb, text)
        passages = {passage.id: passage.content for passage in candidates.behind.values()}
        scores: dict[int, float] = {}
        if reranker is not None and passages:
            given = await reranker.score(text, "", list(passages.values()))
            scores = dict(zip(passages, given.tolist(), strict=True))
        searches.append(JudgedSearch(text, candidates, scores, judged.relevant[query]))
    return searches


@contextmanager
def _copy_for_reading(
    catalogue: Catalogue, kb: KnowledgeBase, maker: EmbedderMaker
) -> Iterator[tuple[Catalogue, Indexer]]:
    """Open a copy of the index: an embedded one is a single process's, and the service may be running. A Qdrant server
    is searched itself."""
    if os.environ.get("QDRANT_URL"):
        indexer = Indexer(catalogue, open_engine(catalogue.folder), maker)
        try:
            yield catalogue, indexer
        finally:
            indexer.close()
        return
    with TemporaryDirectory(prefix="fit_fusion_") as name:
        folder = Path(name)
        target = sqlite3.connect(folder / FILE)
        catalogue.database.connection.backup(target)
        target.close()
        live = Path("versions") / str(kb.live_version)
        if (catalogue.folder / live).is_dir():
            shutil.copytree(catalogue.folder / live, folder / live)
        copy = Catalogue(folder)
        indexer = Indexer(copy, open_engine(folder), maker)
        try:
            yield copy, indexer
        finally:
            indexer.close()
            copy.close()


def _in_force(kb: KnowledgeBase, opened: OpenVersion, reranker: Reranker | None) -> FusionInForce:
    made = opened.version.recipe
    return fusion_in_force(
        kb.fusion, made.embedder_id, made.tokenizer_id, opened.embedder.dense_weight, reranker.id if reranker else ""
    )


def _facts(fit: FusionFit, fitted: FittedFusion, kept: bool) -> dict[str, Any]:
    measures = {
        name: {"before": round(old, 4), "after": round(new, 4), **_rounded(fit.changes[name]._asdict())}
        for name, (old, new) in fit.means.items()
    }
    return {
        "kept": kept,
        "refused": fit.refused,
        "fusion": fitted.id,
        "weights": asdict(fit.weights),
        "before": asdict(fit.before),
        "queries": fit.queries,
        "held_out": fit.held_out,
        "measures": measures,
        f"{OBJECTIVE} of a single channel": _rounded(fit.singles),
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _report(kb: KnowledgeBase, fit: FusionFit, source: str) -> None:
    title = f"{kb.tenant_id}/{kb.name}: {fit.held_out} held-out queries of {fit.queries} from {source}"
    table = Table(title=title, title_justify="left")
    for heading in ("", f"before ({fit.before})", f"fitted ({fit.weights})", "change [95 %]"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, (old, new) in fit.means.items():
        change = fit.changes[name]
        shown = f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        table.add_row(name, f"{old:.3f}", f"{new:.3f}", shown)
    Console(width=120).print(table)
    for name, alone in fit.singles.items():
        print(f"{name} alone: {OBJECTIVE} {alone:.3f}")


if __name__ == "__main__":
    raise SystemExit(main())
