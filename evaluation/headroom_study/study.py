"""Ask the live service what every rewrite of every sample finds, through every channel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evaluation.headroom_study.asking import NOTHING, Asker, Result, Retrieved
from evaluation.headroom_study.candidates import Candidates, baseline_draws, baseline_rewrites
from evaluation.headroom_study.subsets import Search, search_subsets, widen
from evaluation.headroom_study.words import Frequencies, context_words, join_words, words_of
from evaluation.systems import BASELINE, ORIGINAL
from reward.records.call import ServiceFailure
from reward.records.files import BadInput
from reward.records.sample import Sample
from reward.rewrite.combination import check_text
from reward.settings.recipe import RewardSettings, TenantSettings
from reward.text.terms import Lexicon

ORACLE, CONTEXT_ORACLE = "oracle: the query's words", "oracle: words of query and context"
_CONTEXT_POOL = 16  # words of the context that the second oracle chooses from
_ANSWERED = 0.9  # share of a sample's draws that must be answered
_REWARD = RewardSettings()  # whose gates the oracles' choices pass
_LINE_SECONDS = 30.0
_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
    TextColumn("{task.fields[requests]} requests"),
)


@dataclass
class Measured:
    """What one sample's rewrites found through one channel.

    Args:
        fixed: system → result, the oracles' choices among them; without failures.
        draws: source → results of the draws that were answered.
        chosen: oracle → the text it chose.
        failure: why the sample cannot be compared; None when it can.
        asked: different rewrites that were answered.
    """

    fixed: dict[str, Retrieved] = field(default_factory=dict)
    draws: dict[str, list[Retrieved]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    search: Search | None = None
    failure: str | None = None
    asked: int = 0


@dataclass(frozen=True)
class Cost:
    """`baseline_n`: draws of the deployed rewriter. `subsets`: questions of one oracle search, 0 for none. `max_calls`:
    requests to the retrieval service."""

    baseline_n: int
    subsets: int
    max_calls: int


@dataclass
class Study:
    """`measured`: channel → what each sample's rewrites found. `unmeasured`: channel → why it could not be asked."""

    measured: dict[str, list[Measured]] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    fingerprint: str = ""
    scorer: str = ""


async def ask_everything(
    samples: list[Sample],
    candidates: Candidates,
    tenant: TenantSettings,
    channels: Sequence[str],
    ledger: Path,
    cost: Cost,
    described: dict[str, Any] | None,
    console: Console,
) -> Study:
    """Ask about every candidate through every channel, then search the oracles' words.

    Args:
        candidates: those of the deployed rewriter are added.
        described: what the service says of its knowledge base; part of the retriever's fingerprint.

    Raises:
        BadInput: the service does not answer, or can switch to none of the channels.
    """
    study = Study()
    asker = Asker(tenant, ledger, cost.max_calls)
    try:
        answered = await asker.identify(samples, described)
        for channel in channels:
            if why := await asker.why_unmeasured(answered, channel):
                study.unmeasured[channel] = why
        channels = [channel for channel in channels if channel not in study.unmeasured]
        if not channels:
            raise BadInput(f"{tenant.rag.url}: no channel can be measured: {next(iter(study.unmeasured.values()))}")
        with Progress(*_COLUMNS, console=console, transient=True) as progress:

            def begin(what: str) -> Callable[[], None]:
                task = progress.add_task(what, total=len(samples), requests=asker.requests)
                said = time.monotonic()

                def advance() -> None:
                    nonlocal said
                    progress.update(task, advance=1, requests=asker.requests)
                    # Where no bar can be drawn, a line now and then says how far it is.
                    if not console.is_terminal and time.monotonic() - said > _LINE_SECONDS:
                        said = time.monotonic()
                        done = int(progress.tasks[task].completed)
                        console.print(f"{what}: {done} of {len(samples)}, {asker.requests} requests", markup=False)

                return advance

            console.print(_plan(samples, candidates, tenant, channels, cost), markup=False, soft_wrap=True)
            # The deployed rewriter first: what it says is retrieved with like the rest.
            await _add_baseline(samples, candidates, asker, tenant, cost.baseline_n, begin("deployed rewriter"))
            frequencies = Frequencies(f"{s.original_query}\n{s.context.text}" for s in samples)
            # All candidates before any oracle: where the cap ends the study, they are what is compared.
            for channel in channels:
                bar = begin(f"{channel}: rewrites")
                study.measured[channel] = await ask_candidates(samples, candidates, channel, asker, bar)
            for channel in channels if cost.subsets else ():
                bar = begin(f"{channel}: oracle")
                await ask_oracles(
                    samples, study.measured[channel], frequencies, channel, asker, cost.subsets, tenant.lexicon, bar
                )
    finally:
        await asker.aclose()
    study.calls = {
        "retrieval_requests": asker.requests,
        "questions_asked": asker.made,
        "questions_on_disk": asker.stored,
        "not_asked_for_max_calls": asker.refused,
        "baseline_requests": asker.baseline_requests,
    }
    study.fingerprint, study.scorer = asker.fingerprint, ", ".join(sorted(asker.scorers - {""}))
    return study


async def _add_baseline(
    samples: Sequence[Sample],
    candidates: Candidates,
    asker: Asker,
    tenant: TenantSettings,
    n: int,
    on_answer: Callable[[], None],
) -> None:
    fixed, draws, candidates.same = await baseline_rewrites(samples, asker, tenant, n, on_answer)
    if fixed is not None:
        candidates.fixed[BASELINE] = fixed
    if draws is not None:
        candidates.draws[BASELINE] = draws


def _plan(
    samples: Sequence[Sample], candidates: Candidates, tenant: TenantSettings, channels: Sequence[str], cost: Cost
) -> str:
    """Say how much is asked of whom at most, before it is asked."""
    asked = baseline_draws(samples, tenant, cost.baseline_n)
    retrievals = len(samples)  # with the deployed rewriter's rewrites, at least the recorded ones
    for place, count in enumerate(asked):
        texts = {text for rows in candidates.fixed.values() if (text := rows[place])}
        texts |= {text for rows in candidates.draws.values() for text in rows[place]}
        retrievals += len(texts) + count
    contexts = sum(bool(sample.context.text) for sample in samples)
    searched = (len(samples) + contexts) * cost.subsets * len(channels)
    return (
        f"plan: {len(samples)} queries, {len(channels)} channels ({', '.join(channels)}): at most {sum(asked)} answers "
        f"of the deployed rewriter, {retrievals * len(channels)} retrievals with rewrites, {searched} for the oracle; "
        f"--max-calls stops at {cost.max_calls} retrieval requests"
    )


async def ask_candidates(
    samples: Sequence[Sample],
    candidates: Candidates,
    channel: str,
    asker: Asker,
    on_sample: Callable[[], None] = lambda: None,
    at_once: int = 40,
) -> list[Measured]:
    """Retrieve with every candidate of every sample; return what each sample's found, in their order."""
    needed = {name: needed_draws(draws) for name, draws in candidates.draws.items()}
    turns = asyncio.Semaphore(at_once)

    async def measure(place: int) -> Measured:
        async with turns:
            fixed = {name: rewrites[place] for name, rewrites in candidates.fixed.items()}
            draws = {name: rows[place] for name, rows in candidates.draws.items()}
            measured = await _measure(samples[place], fixed, draws, needed, channel, asker)
            on_sample()
            return measured

    return list(await asyncio.gather(*map(measure, range(len(samples)))))


async def ask_oracles(
    samples: Sequence[Sample],
    measured: Sequence[Measured],
    frequencies: Frequencies,
    channel: str,
    asker: Asker,
    most: int,
    lexicon: Lexicon,
    on_sample: Callable[[], None] = lambda: None,
    at_once: int = 40,
) -> None:
    """Search the best words of every sample that can be compared; add what they find to `measured`.

    Args:
        most: subsets of one query's words that are asked about, and as many of query and context.
    """
    with_context = any(sample.context.text for sample in samples)
    turns = asyncio.Semaphore(at_once)

    async def search(place: int) -> None:
        async with turns:
            if measured[place].failure is None:
                await _search(samples[place], measured[place], frequencies, channel, asker, most, with_context, lexicon)
            on_sample()

    await asyncio.gather(*map(search, range(len(samples))))


def needed_draws(draws: Sequence[Sequence[str]]) -> int:
    """Return how many draws of a sample must be answered: most of what a sample usually has."""
    counts = [len(of_sample) for of_sample in draws if of_sample]
    return ceil(_ANSWERED * median(counts)) if counts else 1


async def _measure(
    sample: Sample,
    fixed: Mapping[str, str | None],
    draws: Mapping[str, Sequence[str]],
    needed: Mapping[str, int],
    channel: str,
    asker: Asker,
) -> Measured:
    measured = Measured()
    # Equal rewrites of one sample are asked about once.
    texts = list(dict.fromkeys(text for text in (*fixed.values(), *(t for row in draws.values() for t in row)) if text))
    results = await asyncio.gather(*(asker.ask(sample, text, channel) for text in texts))
    found: dict[str, Result] = {"": NOTHING, **dict(zip(texts, results, strict=True))}
    measured.asked = sum(isinstance(result, Retrieved) for result in results)
    for name, text in fixed.items():
        result = None if text is None else found[text]
        if isinstance(result, Retrieved):
            measured.fixed[name] = result
        else:
            measured.failure = measured.failure or f"{name}: {'no rewrite' if result is None else result.reason}"
    for name, row in draws.items():
        answered = [result for text in row if isinstance(result := found[text], Retrieved)]
        measured.draws[name] = answered
        if len(answered) < needed[name]:
            failures = [result.reason for text in row if isinstance(result := found[text], ServiceFailure)]
            why = failures[0] if failures else f"{len(row)} of {needed[name]} draws"
            measured.failure = measured.failure or f"{name}: {why}"
    return measured


async def _search(
    sample: Sample,
    measured: Measured,
    frequencies: Frequencies,
    channel: str,
    asker: Asker,
    most: int,
    with_context: bool,
    lexicon: Lexicon,
) -> None:
    query = sample.original_query
    words = words_of(query)
    extra = context_words(query, sample.context.text, frequencies, _CONTEXT_POOL)

    def text_of(kept: frozenset[int]) -> str:
        own = join_words(query, words, (i for i in kept if i < len(words)))
        return " ".join([own, *(extra[i - len(words)] for i in sorted(kept) if i >= len(words))]).strip()

    async def ask(kept: frozenset[int]) -> Result:
        # All the words are the query itself, punctuation included.
        return await asker.ask(sample, query if kept == whole else text_of(kept), channel)

    def admits(kept: frozenset[int]) -> bool:
        """Say whether the reward's gates let the subset pass: words whose loss turns the meaning must stay."""
        return check_text(_REWARD, lexicon, sample, text_of(kept)) is None

    whole = frozenset(range(len(words)))
    known = measured.fixed[ORIGINAL]
    # Words that say least are left out first.
    order = sorted(range(len(words)), key=lambda i: frequencies.weight(words[i].text))
    search = await search_subsets(len(words), ask, most, known, order, admits)
    measured.search = search
    measured.fixed[ORACLE] = search.found
    measured.chosen[ORACLE] = query if search.best in (whole, None) else text_of(search.best or whole)
    if with_context:
        # Begin with the best words of the query; a passage that is first already ends the search.
        wider = Search(
            best=search.best,
            found=search.found,
            answers={search.best or whole: search.found, whole: known},
            admits=admits,
        )
        if search.found.rank != 1 and extra:
            pool = range(len(words), len(words) + len(extra))
            await widen(wider, ask, search.best or whole, pool, most)
            search.failed += wider.failed
            search.cut_short |= wider.cut_short
            search.answers.update(wider.answers)
            search.barred |= wider.barred
        measured.fixed[CONTEXT_ORACLE] = wider.found
        best = wider.best or whole
        measured.chosen[CONTEXT_ORACLE] = query if best == whole else text_of(best)
    measured.asked += len(search.answers) - 1
    # A search that the service left half unanswered would pass for a query without room.
    if search.failed > (1 - _ANSWERED) * (search.failed + len(search.answers)):
        measured.failure = f"oracle: {search.failed} questions failed"
