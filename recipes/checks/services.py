"""One question to each service that a run pays or waits for: does it answer, is the answer sane, how long does it take?

The judge is asked what the run asks it first: to grade the first baselines. The answers go to the run's ledger, so that
nothing is paid for twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median

from omegaconf import DictConfig

from guard.private_files import make_folder
from recipes.checks.finding import Finding, bad, ok, warning
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.ledger.ledger_file import open_to_read
from reward.records.call import FailureKind, ServiceFailure
from reward.records.sample import Candidates, Sample
from reward.services.baseline_client import BaselineClient
from reward.settings.recipe import JudgeSettings, RewriterSettings
from reward.text.fold import is_same_text

JUDGED_SAMPLES = 2
LAST_CALLS = 50  # of the ledger, whose latencies count


@dataclass(frozen=True)
class CallCost:
    """Seconds and yuan of one call to the judge."""

    seconds: float
    cny: float


def ask_baseline(settings: RewriterSettings, sample: Sample, *, needed: bool) -> list[Finding]:
    """Ask the tenant's deployed rewriter for one rewrite, where the recipe names one.

    Args:
        needed: whether prompts without a recorded baseline wait for it.
    """
    tenant = settings.tenant
    if tenant.baseline.url is None:
        return []

    async def ask() -> str | ServiceFailure:
        client = BaselineClient(tenant.baseline, tenant.tenant_id)
        try:
            return (await client.rewrite(sample.model_copy(update={"candidates": Candidates()})))[0]
        finally:
            await client.aclose()

    start = time.perf_counter()
    rewrite = asyncio.run(ask())
    where = tenant.baseline.url
    if isinstance(rewrite, ServiceFailure):
        return [(bad if needed else warning)("baseline", f"{where}: {rewrite.reason}")]
    took = f"answers in {time.perf_counter() - start:.2f} s"
    if len(rewrite) > settings.reward.length.cap:
        cap = f"above rewriter.reward.length.cap={settings.reward.length.cap}"
        return [warning("baseline", f"{where} {took} with {len(rewrite)} characters, {cap}: is that a rewrite?")]
    if is_same_text(rewrite, sample.original_query):
        return [warning("baseline", f"{where} {took} with the query itself: does it rewrite?")]
    return [ok("baseline", f"{where} {took}: {rewrite[:40]}")]


def ask_judge(settings: RewriterSettings, samples: Sequence[Sample]) -> tuple[list[Finding], CallCost | None]:
    """Ask the judge about the first baselines.

    Returns:
        The findings; what a call takes and costs, where one was answered.

    Raises:
        BadInput: the ledger cannot be opened, or the judge's key is not set.
    """
    judge = settings.judge
    assert judge is not None
    graded = [sample for sample in samples if sample.candidates.baseline][:JUDGED_SAMPLES]
    if not graded:
        return [warning("judge", "no recorded baseline among the first prompts to ask it about")], None
    scores = asyncio.run(_grade(settings, judge, graded))
    each = last_calls(settings.ledger.path)
    for score in scores:
        if isinstance(score, ServiceFailure):
            level = warning if score.kind is FailureKind.BUDGET_SPENT else bad
            return [level("judge", f"{judge.model}: {score.reason}")], each
    shown = ", ".join(f"{score:.2f}" for score in scores)
    what = "prefers the baseline to the plain query at" if judge.mode == "pairwise" else "grades the first baselines"
    took = f"{each.seconds:.2f} s a call" if each else "no call was needed"
    text = f"{judge.model} {what} {shown}; {took}; recorded, the run does not pay for it again"
    return [ok("judge", text)], each


async def _grade(
    settings: RewriterSettings, profile: JudgeSettings, samples: Sequence[Sample]
) -> list[float | ServiceFailure]:
    """Grades of the baselines, 1 to 5; in pairwise mode preferences for them over the plain query, -1 to 1."""
    from reward.judge.judge import Judge  # its client takes a second to import: a refusal must not wait for it

    make_folder(settings.ledger.path.parent)
    with closing(Ledger(settings.ledger)) as ledger:
        judge = Judge(profile, settings.tenant, settings.ledger.cny_per_usd, Calls(ledger))
        try:
            if profile.mode != "pairwise":
                votes = [judge.grade_baseline(sample, sample.candidates.baseline or "") for sample in samples]
                return [vote.score for vote in await asyncio.gather(*votes)]
            asked = [
                judge.judge(sample, sample.original_query, sample.candidates.baseline or "") for sample in samples[:1]
            ]
            found = [judged.judgement for judged in await asyncio.gather(*asked)]
            return [one if isinstance(one, ServiceFailure) else -(one.preference or 0.0) for one in found]
        finally:
            await judge.aclose()


def last_calls(ledger: Path) -> CallCost | None:
    """Median time and price of the last calls to the judge that were answered; None without one."""
    with closing(open_to_read(ledger)) as db:
        rows = db.execute(
            "SELECT latency, cny FROM calls WHERE kind = 'judge' AND status = 'ok' ORDER BY id DESC LIMIT ?",
            (LAST_CALLS,),
        ).fetchall()
    return CallCost(median(row[0] for row in rows), median(row[1] for row in rows)) if rows else None


def judge_calls_a_step(config: DictConfig, judge: JudgeSettings) -> int:
    """Calls of the judge in a step of the first epoch, in which the baselines are graded, too."""
    prompts, group = config.recipe.rl.prompts_per_step, config.recipe.rl.group_size
    if judge.mode == "pairwise":
        return 2 * prompts * group
    rewrites = ceil(group / judge.batching.candidates) if judge.mode == "batched" else group
    return prompts * (rewrites + judge.baseline_votes)
