"""What does each part of retrieval bring, and is the whole at least as good as plain BM25?

    python -m benchmarks.retrieval --beir DIR [--beir DIR ...] [--retriever hashing] [--reranker MODEL]
        [--llm-url URL --rewrite-model MODEL]

Every set is put into a knowledge base, built and searched by the service's own engine, a switch at a time; beside it
BM25 by bm25s (k1 1.2, b 0.75) over jieba words, over \\w\\w+ words (sets without Chinese queries), and over the
engine's own tokens. Where queries have descriptions, three ways to put them are measured: the text, the description,
both. Metrics are from ir-measures, with paired 95 % bootstrap intervals over the queries in brackets.

"Plain BM25" is whichever of the two ways to cut words does better on nDCG@10. Keys from questions that people wrote:

- the text of each query as a key of the passages that answer it, the description as the query. Text and description
  are the same person's, about the same thing: this is a bound of what perfect questions could bring;
- the same, but a query's own text is never a key while it is asked (5 folds): what other people's questions bring.

No query is ever searched with a text that is a key. The last line is JSON: metrics by set and way, and the claims.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from benchmarks.progress import progress_bar
from benchmarks.retrieval_runs.peers import Bm25, jieba_words, latin_words
from benchmarks.retrieval_runs.runs import EngineRuns, switched_on
from benchmarks.retrieval_runs.sets import FOLDS, RetrievalSet, fold_of, read_retrieval_set
from rag.command import command
from rag.learning.judged_queries import MEASURES, paired_difference, query_metrics
from rag.models.embedder import embedder_maker
from rag.models.language_model import LanguageModel, LanguageModelSettings
from rag.models.reranker import Reranker, open_reranker

JIEBA, WORDS, OWN_TOKENS = "BM25, jieba words (bm25s)", "BM25, \\w\\w+ words (bm25s)", "BM25, our tokens (bm25s)"
DENSE, KEYWORD, HYBRID = "dense", "keyword", "hybrid"
LEXICAL, CROSS = "hybrid, in the order of lexical relevance", "hybrid + cross-encoder"
QUERY2DOC = "hybrid + query2doc"
KEYS, OTHERS_KEYS = "hybrid + people's questions as keys", "hybrid + other people's questions as keys"

_CHINESE = re.compile("[\u4e00-\u9fff]")

Rankings = dict[str, list[str]]
Metrics = dict[str, np.ndarray]


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--beir", type=Path, action="append", required=True, help="folder of a BEIR set; repeatable")
    parser.add_argument("--retriever", default="hashing", help="embedder of the dense channel (default: %(default)s)")
    parser.add_argument("--reranker", help="folder of a CrossEncoder, or URL#model")
    parser.add_argument("--llm-url", "--llm_url", help="OpenAI-compatible /v1 that writes pseudo-documents")
    parser.add_argument("--rewrite-model", "--rewrite_model", help="its model")
    args = parser.parse_args(argv)
    if bool(args.llm_url) != bool(args.rewrite_model):
        parser.error("--llm-url and --rewrite-model: one needs the other")
    metrics: dict[str, dict[str, float | bool]] = {}
    console = Console(width=150)
    sets = [read_retrieval_set(folder) for folder in args.beir]
    for one in sets:
        # Of a set's own: their connections belong to one event loop.
        reranker = open_reranker(args.reranker) if args.reranker else None
        llm = LanguageModel(LanguageModelSettings(args.llm_url, args.rewrite_model)) if args.llm_url else None
        with (
            TemporaryDirectory(prefix="retrieval_benchmark_") as folder,
            progress_bar(refresh_per_second=1, transient=True) as progress,
        ):
            runs = EngineRuns(Path(folder), embedder_maker(args.retriever), llm, reranker)
            measured = _measure(one, runs, progress, llm is not None, reranker)
            runs.close()
        for variant, systems in measured.items():
            console.print(_table(f"{one.name}, query = {variant}", systems))
            metrics[f"{one.name}/{variant}"] = _claims(systems)
        for failure, times in runs.failures.items():
            console.print(f"{one.name}: {failure}, {times} times")
    print(json.dumps(metrics))
    return 0


def _measure(
    one: RetrievalSet, runs: EngineRuns, progress: Progress, with_llm: bool, reranker: Reranker | None
) -> dict[str, dict[str, Metrics]]:
    """Return query variant → system → metrics of each query, in one order of queries."""
    variants = one.variants()
    rankings: dict[str, dict[str, Rankings]] = {variant: {} for variant in variants}
    peers = [(JIEBA, Bm25(one, jieba_words)), (OWN_TOKENS, Bm25(one))]
    if not any(_CHINESE.search(text) for text in one.queries.texts.values()):
        peers.insert(1, (WORDS, Bm25(one, latin_words)))
    for variant, queries in variants.items():
        for name, peer in peers:
            rankings[variant][name] = peer.rank(queries)
    runs.build(one.documents)
    hybrid = switched_on("dense", "keyword")
    systems = [(DENSE, switched_on("dense"), False), (KEYWORD, switched_on("keyword"), False), (HYBRID, hybrid, False)]
    systems.append((LEXICAL, hybrid, True))
    systems += [(CROSS, switched_on("dense", "keyword", "rerank"), False)] if reranker else []
    systems += [(QUERY2DOC, switched_on("dense", "keyword", "query2doc"), False)] if with_llm else []
    for variant, queries in variants.items():
        for name, channels, by_relevance in systems:
            show = _bar(progress, f"{one.name}, {variant}: {name}", len(queries))
            rankings[variant][name] = runs.rank(queries, channels, show, by_relevance=by_relevance)
    _rank_with_keys(one, runs, progress, rankings)
    relevant = one.queries.relevant
    return {
        # All in the order of the variant's queries.
        variant: {name: query_metrics({q: found[q] for q in variants[variant]}, relevant) for name, found in by.items()}
        for variant, by in rankings.items()
    }


def _rank_with_keys(
    one: RetrievalSet, runs: EngineRuns, progress: Progress, rankings: dict[str, dict[str, Rankings]]
) -> None:
    """Add KEYS where descriptions can be asked, and OTHERS_KEYS to every way of asking."""
    channels, texts = switched_on("dense", "keyword", "doc2query"), one.queries.texts
    variants = one.variants()
    if "description" in variants:
        runs.build(one.with_keys(texts))
        show = _bar(progress, f"{one.name}, description: {KEYS}", len(texts))
        rankings["description"][KEYS] = runs.rank(variants["description"], channels, show)
    shows = {variant: _bar(progress, f"{one.name}, {variant}: {OTHERS_KEYS}", len(texts)) for variant in variants}
    for fold in range(FOLDS):
        asked = {query for query, text in texts.items() if fold_of(text) == fold}
        runs.build(one.with_keys(texts.keys() - asked))
        for variant, queries in variants.items():
            found = runs.rank({query: queries[query] for query in texts if query in asked}, channels, shows[variant])
            rankings[variant].setdefault(OTHERS_KEYS, {}).update(found)


def _references(systems: Mapping[str, Metrics]) -> tuple[str, str]:
    """Return the better plain BM25 by nDCG@10, and the better single channel by R@10."""
    plain = max({JIEBA, WORDS} & systems.keys(), key=lambda name: systems[name]["nDCG@10"].mean())
    single = max((DENSE, KEYWORD), key=lambda name: systems[name]["R@10"].mean())
    return plain, single


def _claims(systems: Mapping[str, Metrics]) -> dict[str, float | bool]:
    plain, single = _references(systems)
    found: dict[str, float | bool] = {
        f"{name}: {measure}": round(float(values[measure].mean()), 4)
        for name, values in systems.items()
        for measure in ("R@10", "nDCG@10")
    }

    def gain(after: str, before: str, measure: str = "R@10") -> float:
        return round(float((systems[after][measure] - systems[before][measure]).mean()), 4)

    found["hybrid over the better single channel, R@10"] = gain(HYBRID, single)
    for keys in (KEYS, OTHERS_KEYS):
        if keys in systems:
            found[f"{keys.removeprefix('hybrid + ')}, R@10"] = gain(keys, HYBRID)
    found["over plain BM25, R@10"] = gain(HYBRID, plain)
    found["over plain BM25, nDCG@10"] = gain(HYBRID, plain, "nDCG@10")
    found["at least as good as plain BM25"] = min(gain(HYBRID, plain), gain(HYBRID, plain, "nDCG@10")) >= 0
    return found


def _table(title: str, systems: Mapping[str, Metrics]) -> Table:
    plain, single = _references(systems)
    table = Table(title=f"{title} ({len(systems[HYBRID]['R@10'])} queries)", title_justify="left")
    table.add_column("system")
    for name in MEASURES:
        table.add_column(name, justify="right")
    table.add_column("R@10 over plain BM25", justify="right")
    table.add_column(f"R@10 over {single} alone", justify="right")
    for name, values in systems.items():
        means = [f"{values[measure].mean():.3f}" for measure in MEASURES]
        compared = [
            ""
            if name == other
            else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*paired_difference(values["R@10"], systems[other]["R@10"]))
            for other in (plain, single)
        ]
        table.add_row(name, *means, *compared, style="bold" if name == HYBRID else "")
    table.caption = f"plain BM25: {plain}"
    return table


def _bar(progress: Progress, name: str, total: int) -> Callable[[], None]:
    task: TaskID = progress.add_task(name, total=total)
    return lambda: progress.advance(task)


if __name__ == "__main__":
    raise SystemExit(main())
