"""Learn from a week of clicks, and say what it brought.

    python -m rag.learn_from_clicks --index data --tenant fivedoctors --out learned --since 2026-03-01 \
        --settings rag.yaml

`--settings` is the file of rag.serve: its embedder and its language model; `--retriever`, `--llm-url` and
`--rewrite-model` say it on the command line.

Per query and passage the clicks say for sure that it answers, for sure that it does not, or nothing
(`rag.learning.click_evidence`). Then:

- passages that surely do not answer a query get their pseudo-questions written anew, and lose those near to the query
  (without a language model they only lose those). What a passage was once renewed for is not done again
  (`manifest.json`);
- `reranker_pairs.jsonl`, for the reranker's training: a line for each query with a sure answer. `positives` are the
  answers, `negatives` what was shown and never clicked (`rag.learning.reranker_pairs`);
- R@1/5/10, MRR@10 and nDCG@10 before and after, over queries nothing was learned from: those of a BEIR folder
  (`--heldout`), else of every fifth query with a sure answer. Measured on a copy of the knowledge base, built and then
  updated incrementally as a service does it.

A serving process takes the questions up by itself. `manifest.json` holds the metrics and what made them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from guard.personal.masking import mask_id, mask_message
from rag.catalogue.catalogue import Catalogue, stored_knowledge_base
from rag.catalogue.clicks import Clicks
from rag.catalogue.records import KnowledgeBase
from rag.command import command
from rag.documents.records import IngestError
from rag.learning.click_evidence import Pair, normalize_query, weigh_clicks
from rag.learning.judged_queries import JudgedQueries, read_judged_queries
from rag.learning.rehearsal import rehearse
from rag.learning.reranker_pairs import write_reranker_pairs
from rag.models.embedder import DEFAULT_RETRIEVER, embedder_maker
from rag.models.language_model import LanguageModel, LanguageModelSettings
from rag.models.reranker import open_reranker
from rag.settings import model_options, read_settings

PAIRS, MANIFEST = "reranker_pairs.jsonl", "manifest.json"
_HELD_OUT = 5  # one of so many queries with a sure answer is held out
_LISTED = 20


@dataclass(frozen=True)
class Options:
    """What to learn from (`index`, `tenant`, `kb_name`, `since`), with which models, and where the results go."""

    index: Path
    tenant: str
    out: Path
    kb_name: str = "default"
    since: str = ""
    language_model: LanguageModelSettings | None = None
    reranker: str | None = None
    retriever: str = DEFAULT_RETRIEVER
    heldout: Path | None = None


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Learn and print what it brought. Exit code 0; 2: the input cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m rag.learn_from_clicks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--index", type=Path, required=True, help="data folder of the service")
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--kb-name", "--kb_name", default="default")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; the same one each week")
    parser.add_argument("--since", default="", help="first day or time (UTC, ISO 8601) of the clicks that count")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML of rag.serve; options count before it")
    parser.add_argument("--llm-url", "--llm_url", help="OpenAI-compatible endpoint ending in /v1; key: LLM_API_KEY")
    parser.add_argument("--rewrite-model", "--rewrite_model", help="name of the model there, or at that of --settings")
    parser.add_argument("--reranker", help="what write_questions scored its questions with, if not words")
    parser.add_argument("--retriever", help="embedder of the index (default: the settings')")
    parser.add_argument("--heldout", type=Path, help="BEIR folder (queries.jsonl, qrels.tsv) to measure on")
    args = parser.parse_args(argv)
    given: dict[str, Any] = {"language_model": model_options(args.llm_url, args.rewrite_model)}
    if args.retriever is not None:
        given["retriever"] = args.retriever
    settings = read_settings(args.settings, given)
    named = {
        name: getattr(args, name) for name in ("index", "tenant", "kb_name", "out", "since", "reranker", "heldout")
    }
    options = Options(**named, retriever=settings.embedder, language_model=settings.language_model)
    with stored_knowledge_base(options.index, options.tenant, options.kb_name) as (catalogue, kb):
        _report(asyncio.run(learn_from_clicks(options, catalogue, kb)))
    return 0


async def learn_from_clicks(options: Options, catalogue: Catalogue, kb: KnowledgeBase) -> dict[str, Any]:
    """Weigh the clicks, renew questions, write reranker lists and measure; return what `manifest.json` holds.

    Raises:
        IngestError: a model, the held-out queries or the last run's manifest cannot be read.
    """
    # Held-out queries are taken out before anything is learned: they measure what it brought.
    maker = embedder_maker(options.retriever)
    clicks = list(Clicks(catalogue).read(kb.id, options.since))
    pairs = weigh_clicks(clicks)
    judged = read_judged_queries(options.heldout) if options.heldout else hold_out(pairs)
    held_out = {normalize_query(text) for text in judged.texts.values()} if judged else set()
    learned_from = [pair for pair in pairs if pair.query not in held_out]
    options.out.mkdir(parents=True, exist_ok=True)
    counts = write_reranker_pairs(catalogue, kb, learned_from, options.out / PAIRS)
    # A passage is renewed again only when the queries against it have changed.
    before_this = _read_manifest(options.out / MANIFEST).get("renewed_for", {})
    unanswered = _unanswered(learned_from)
    renewed_for = {mask_id(key): [mask_message(query) for query in queries] for key, queries in unanswered.items()}
    to_do = {
        key: queries
        for key, queries in unanswered.items()
        if before_this.get(mask_id(key)) != renewed_for[mask_id(key)]
    }
    reranker = open_reranker(options.reranker) if options.reranker else None
    language_model = None
    if options.language_model is not None:
        language_model = LanguageModel(options.language_model)
    # Rehearsed on a copy, which also measures before and after; applied only when all went well.
    try:
        renewal, metrics = await rehearse(catalogue, kb, maker, to_do, language_model, reranker, judged)
    finally:
        if reranker is not None:
            await reranker.aclose()
        if language_model is not None:
            await language_model.aclose()
    renewal.apply(catalogue, kb)
    manifest: dict[str, Any] = {
        "tenant": kb.tenant_id,
        "kb_name": kb.name,
        "clicks": {"rows": len(clicks), "first": clicks[0].at, "last": clicks[-1].at} if clicks else {"rows": 0},
        "pairs": {name: 0 for name in ("positive", "negative", "ambiguous")} | Counter(one.label for one in pairs),
        "reranker_pairs": counts,
        "renewal": {
            "passages": len(renewal.questions),
            "written_anew": len(renewal.written),
            "questions_dropped": renewal.dropped,
            "without_questions": renewal.without,
            "failures": [(mask_id(key), mask_message(failure)) for key, failure in renewal.failures[:_LISTED]],
            "language_model": language_model.id if language_model else "none: questions are dropped, none are written",
        },
        "heldout": {"from": str(options.heldout or "clicks"), "queries": len(judged.texts) if judged else 0},
        "figures": metrics,
        "embedder": maker.id,
        "renewed_for": before_this | {name: renewed_for[name] for name in sorted(map(mask_id, renewal.written))},
    }
    (options.out / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return manifest


def hold_out(pairs: Sequence[Pair]) -> JudgedQueries | None:
    """Hold out a fifth of the queries with a sure answer, by a hash of the query; None when that is none."""
    answers: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.label == "positive" and zlib.crc32(pair.query.encode()) % _HELD_OUT == 0:
            answers.setdefault(pair.query, []).append(pair.passage_key)
    if not answers:
        return None
    return JudgedQueries({query: query for query in answers}, {query: tuple(keys) for query, keys in answers.items()})


def _unanswered(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Return passage key → the queries that it surely does not answer."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.label == "negative":
            found.setdefault(pair.passage_key, []).append(pair.query)
    return found


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read the last run's manifest; empty when there is none.

    Raises:
        IngestError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("renewed_for"), dict):
        raise IngestError(f"{path}: not a manifest of this command: remove it or choose another --out")
    return found


def _report(manifest: dict[str, Any]) -> None:
    counts, renewal, metrics = manifest["reranker_pairs"], manifest["renewal"], manifest["figures"]
    for key, failure in renewal["failures"]:
        print(f"{key}: {failure}", file=sys.stderr)
    if metrics:
        table = Table(title=f"{manifest['heldout']['queries']} held-out queries", title_justify="left")
        table.add_column("")
        for heading in ("before", "after", "change [95 %]"):
            table.add_column(heading, justify="right")
        for name, of in metrics.items():
            change = f"{of['change']:+.3f} [{of['low']:+.3f}, {of['high']:+.3f}]"
            table.add_row(name, f"{of['before']:.3f}", f"{of['after']:.3f}", change)
        Console().print(table)
    else:
        print("nothing to measure on: no --heldout, and too few sure answers")
    print(
        f"{manifest['tenant']}/{manifest['kb_name']}: {manifest['clicks']['rows']} clicks, {manifest['pairs']}; "
        f"{counts['queries']} reranker lists; questions of {renewal['passages']} passages changed "
        f"({renewal['written_anew']} written anew, {renewal['questions_dropped']} dropped)"
    )
    print(json.dumps(metrics))


if __name__ == "__main__":
    raise SystemExit(main())
