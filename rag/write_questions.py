r"""Let a language model write questions that users may ask, as further keys to a knowledge base's passages (Doc2Query).

    python -m rag.write_questions --index data --tenant fivedoctors --llm-url http://127.0.0.1:8000/v1 \
        --rewrite-model qwen3-8b

Each question is scored against its own passage, and only the best share (`--keep`) over the whole knowledge base is
indexed: a question that its passage does not answer leads users astray (Doc2Query--, Gospodinov et al. 2023). The
scores are a cross-encoder's (`--reranker`), else lexical ones, which see only whether the question's words are in the
passage. Passages that have their questions are not asked about again: a run that was broken off is continued by the
same command. A serving process takes the questions up by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from rag.catalogue.catalogue import Catalogue, stored_knowledge_base
from rag.catalogue.records import KnowledgeBase, StoredPassage
from rag.catalogue.token_statistics import TokenStatistics
from rag.command import command
from rag.models.language_model import LanguageModel, LanguageModelSettings, ModelFailure
from rag.models.reranker import Reranker, open_reranker
from rag.retrieval.lexical_reranker import LexicalReranker
from rag.settings import model_options, read_settings

# Faithfulness in [0, 1] of each question to the passage; may raise ModelFailure.
Score = Callable[[Sequence[str], StoredPassage], Awaitable[Sequence[float]]]

_GIVE_UP_AFTER = 50  # failures in a row: the endpoint is gone, and each further attempt would only take its time
_PAGE = 1000
QUESTIONS, KEEP, CONCURRENCY = 5, 0.7, 8  # a passage; share that is indexed; requests at one time
_LISTED = 10


@dataclass(frozen=True)
class Options:
    """Which models write and score, how many questions a passage gets, and the share of them that is indexed."""

    language_model: LanguageModelSettings
    reranker: str | None
    questions: int
    concurrency: int
    keep: float


@dataclass(slots=True)
class Written:
    """`failures`: (passage's key, reason) of each passage that stays without questions. `gave_up`: the rest was not
    tried."""

    passages: int = 0
    questions: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    gave_up: bool = False


async def write_questions(
    catalogue: Catalogue,
    kb: KnowledgeBase,
    passages: Iterable[StoredPassage],
    language_model: LanguageModel,
    score: Score,
    n: int = 5,
    concurrency: int = 8,
    on_progress: Callable[[], None] = lambda: None,
) -> Written:
    """Write `n` questions for each of `passages` in place of those a model wrote before, each stored as soon as it is
    scored; `on_progress` is called after each passage. Which are kept is `keep_best`'s part."""
    written, rest = Written(), iter(passages)
    failures_in_a_row = 0

    async def work() -> None:
        nonlocal failures_in_a_row
        for passage in rest:
            try:
                questions = await language_model.questions(passage.content, n)
                scores = await score(questions, passage)
            except ModelFailure as failure:
                written.failures.append((passage.key, str(failure)))
                failures_in_a_row += 1
            else:
                catalogue.put_questions(kb.id, passage.id, list(zip(questions, map(float, scores), strict=True)))
                written.passages += 1
                written.questions += len(questions)
                failures_in_a_row = 0
            on_progress()
            if failures_in_a_row >= _GIVE_UP_AFTER:
                written.gave_up = True
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    return written


def keep_best(catalogue: Catalogue, kb: KnowledgeBase, keep: float) -> tuple[int, int]:
    """Index, of the model's questions over the whole knowledge base, the share `keep` in (0, 1] with the best scores,
    and all that score like the last of them; return how many those are, of how many."""
    scores = sorted(
        question.score or 0.0
        for passage in _pages(catalogue.passages, kb.id)
        for question in catalogue.questions(kb.id, passage.id)
        if question.source == "model"
    )
    if not scores:
        return 0, 0
    threshold = scores[len(scores) - math.ceil(keep * len(scores))]
    return catalogue.keep_questions(kb.id, threshold), len(scores)


def lexical_score(catalogue: Catalogue, kb: KnowledgeBase) -> Score:
    """Score by the share of the question's rarer tokens that the passage holds."""
    reranker = LexicalReranker(TokenStatistics.from_bytes(catalogue.token_frequencies(kb.id)))

    async def score(questions: Sequence[str], passage: StoredPassage) -> list[float]:
        return [float(reranker.score(question, "", [passage.token_ids])[0]) for question in questions]

    return score


def model_score(reranker: Reranker) -> Score:
    async def score(questions: Sequence[str], passage: StoredPassage) -> list[float]:
        return [float((await reranker.score(question, "", [passage.content]))[0]) for question in questions]

    return score


def _pages(read: Callable[..., list[StoredPassage]], kb_id: int) -> Iterator[StoredPassage]:
    after = 0
    while page := read(kb_id, after_id=after, limit=_PAGE):
        yield from page
        after = page[-1].id


async def write_missing_questions(options: Options, catalogue: Catalogue, kb: KnowledgeBase) -> int:
    """Write questions for the passages that have none, keep the best and print what was done; return the exit code: 75
    when more than half of the passages tried got no question."""
    reranker = open_reranker(options.reranker) if options.reranker else None
    language_model = LanguageModel(options.language_model)
    console = Console(stderr=True)
    # Each passage's questions are stored as they come, so that a run can be broken off and continued.
    try:
        score = model_score(reranker) if reranker else lexical_score(catalogue, kb)
        passages = _pages(catalogue.passages_without_questions, kb.id)
        with Progress(console=console, disable=not console.is_terminal) as progress:
            todo = sum(1 for _ in _pages(catalogue.passages_without_questions, kb.id))
            task = progress.add_task("writing questions", total=todo)
            written = await write_questions(
                catalogue,
                kb,
                passages,
                language_model,
                score,
                options.questions,
                options.concurrency,
                lambda: progress.advance(task),
            )
    finally:
        await language_model.aclose()
        if reranker is not None:
            await reranker.aclose()
    # Which questions are good enough shows only when all are scored.
    kept, of = keep_best(catalogue, kb, options.keep)
    for key, failure in written.failures[:_LISTED]:
        print(f"{key}: {failure}", file=sys.stderr)
    if len(written.failures) > _LISTED:
        print(f"… and {len(written.failures) - _LISTED} more", file=sys.stderr)
    print(
        f"{kb.tenant_id}/{kb.name}: {written.questions} questions for {written.passages} of {todo} passages, "
        f"{len(written.failures)} failed{', given up' if written.gave_up else ''}; {kept} of {of} questions are "
        f"indexed, the best {options.keep:.0%} (--keep)"
    )
    return 75 if 2 * len(written.failures) > written.passages + len(written.failures) else 0


def share(text: str) -> float:
    """Read a command line's number in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: not in (0, 1]")
    return value


def count(text: str) -> int:
    """Read a command line's whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: less than 1")
    return value


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write questions. Exit code 0; 2: the input cannot be used; 75: more than half of the passages tried got no
    question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True, help="folder that build_index wrote")
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--kb-name", "--kb_name", default="default")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML of rag.serve; options count before it")
    parser.add_argument("--llm-url", "--llm_url", help="OpenAI-compatible endpoint ending in /v1; key: LLM_API_KEY")
    parser.add_argument("--rewrite-model", "--rewrite_model", help="name of the model there, or at that of --settings")
    parser.add_argument(
        "--disable-thinking", "--disable_thinking", action="store_true", help="for servers of Qwen3-like models"
    )
    parser.add_argument("--questions", type=count, default=QUESTIONS, help="a passage (default: %(default)s)")
    parser.add_argument(
        "--keep", type=share, default=KEEP, help="share of the questions that is indexed (default: %(default)s)"
    )
    parser.add_argument("--concurrency", type=count, default=CONCURRENCY)
    parser.add_argument("--reranker", help="CrossEncoder folder, or URL#model of a rerank endpoint")
    args = parser.parse_args(argv)
    given: dict[str, Any] = {**model_options(args.llm_url, args.rewrite_model)}
    if args.disable_thinking:
        given["disable_thinking"] = True
    model = read_settings(args.settings, {"language_model": given}).language_model
    if model is None:
        parser.error("--llm-url and --rewrite-model, or a language_model in --settings, say which model writes")
    with stored_knowledge_base(args.index, args.tenant, args.kb_name) as (catalogue, kb):
        options = Options(model, args.reranker, args.questions, args.concurrency, args.keep)
        return asyncio.run(write_missing_questions(options, catalogue, kb))


if __name__ == "__main__":
    sys.exit(main())
