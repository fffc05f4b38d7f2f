"""How far a judge's modes agree: what sharing a call (batched) or comparing (pairwise) does to its verdicts.

`python -m reward.judge_agreement --pairs FILE --tenant TENANT --judge PROFILE [--modes pointwise batched pairwise]`

The same pairs (as those of `reward.canary`) are judged in each mode, through a ledger: the same command again, or one
with more pairs, pays for nothing twice. Batched, the rewrites of all pairs with the same query and context share
calls, as a prompt's rollouts do in training: several pairs a query show more of its effect than one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scipy.stats import spearmanr

from reward.judge.agreement import JudgedPair, cohen_kappa, confusion, summarise
from reward.judge.canary import CanaryPair, judge_pairs, read_pairs
from reward.judge.judge import Judge
from reward.ledger.calls import Calls, Perform
from reward.ledger.ledger import Ledger
from reward.ledger.ledger_file import open_to_read
from reward.records.call import Answer, Call, CallTrace, content_key
from reward.records.commands import command
from reward.records.files import BadInput
from reward.records.outcome import JudgeMode
from reward.settings.recipe import JudgeSettings, LedgerSettings, TenantSettings, load_judge, load_tenant

MODES: tuple[JudgeMode, ...] = ("pointwise", "batched", "pairwise")
ROUND = ("agreement",)


@dataclass(frozen=True)
class ModeUse:
    """What judging the pairs in one mode has taken, in all runs of this command together. `failure` is the last one of
    a question that has no answer yet. `calls` are requests, their retries included; cost in yuan."""

    calls: float
    input_tokens: float
    output_tokens: float
    cost: float
    failure: str = ""


@dataclass(frozen=True)
class ModeAgreement:
    """How far two modes agree, over what both have judged; `None` where there is nothing to count or no spread.

    Args:
        pairs: pairs judged in both modes.
        same_winner: share of them with the same label, a, b or tie.
        kappa: Cohen's kappa of the labels.
        rewrites: different rewrites (of a query) scored in both modes; 0 when one of them only compares.
        spearman: rank correlation of their 综合得分.
        difference: mean absolute difference of their 综合得分 (from 0 to 4).
    """

    pairs: int
    same_winner: float | None = None
    kappa: float | None = None
    rewrites: int = 0
    spearman: float | None = None
    difference: float | None = None


def compare_modes(pairs: Sequence[CanaryPair], one: Sequence[JudgedPair], other: Sequence[JudgedPair]) -> ModeAgreement:
    """`one` and `other` are what two modes said of `pairs`, in the same order."""
    labels = [(a.judged, b.judged) for a, b in zip(one, other, strict=True) if a.judged and b.judged]
    if not labels:
        return ModeAgreement(pairs=0)
    kappa = float(cohen_kappa(confusion([a for a, _ in labels], [b for _, b in labels])))
    first, second = _scores(pairs, one), _scores(pairs, other)
    both = np.array([(first[rewrite], second[rewrite]) for rewrite in first if rewrite in second]).reshape(-1, 2)
    has_spread = len(both) > 1 and np.ptp(both, axis=0).all()
    return ModeAgreement(
        pairs=len(labels),
        same_winner=float(np.mean([a == b for a, b in labels])),
        kappa=None if np.isnan(kappa) else kappa,
        rewrites=len(both),
        spearman=float(spearmanr(both[:, 0], both[:, 1]).statistic) if has_spread else None,
        difference=float(np.abs(both[:, 0] - both[:, 1]).mean()) if len(both) else None,
    )


def _scores(pairs: Sequence[CanaryPair], judged: Sequence[JudgedPair]) -> dict[str, float]:
    """Return 综合得分 by content of query and rewrite: a rewrite of several pairs counts once."""
    scores = {}
    for pair, said in zip(pairs, judged, strict=True):
        for rewrite, score in ((pair.rewrite_a, said.score_a), (pair.rewrite_b, said.score_b)):
            if score is not None:
                scores[content_key(pair.original_query, pair.context.model_dump(), rewrite)] = score
    return scores


class _NotedCalls(Calls):
    """Notes the keys it was asked for: the ledger knows what each answer has cost."""

    def __init__(self, ledger: Ledger):
        super().__init__(ledger)
        self.keys: set[str] = set()

    async def once(self, call: Call, perform: Perform, cost: Callable[[CallTrace], float] | None = None) -> Answer:
        self.keys.add(call.key)
        return await super().once(call, perform, cost)


async def judge_in_mode(
    profile: JudgeSettings,
    tenant: TenantSettings,
    pairs: Sequence[CanaryPair],
    ledger_settings: LedgerSettings,
    on_judged: Callable[[], None],
) -> tuple[list[JudgedPair], ModeUse]:
    """What the judge says of the pairs in the profile's mode, and what that took.

    Raises:
        BadInput: the ledger cannot be used, or the judge's API key is not set.
    """
    ledger = Ledger(ledger_settings)
    try:
        calls = _NotedCalls(ledger)
        judge = Judge(profile, tenant, ledger_settings.cny_per_usd, calls)
        try:
            judged, _ = await judge_pairs(judge, pairs, ROUND, on_judged)
        finally:
            await judge.aclose()
    finally:
        ledger.close()
    return judged, _use(ledger_settings.path, calls.keys)


def _use(ledger: Path, keys: set[str]) -> ModeUse:
    chosen = "FROM calls WHERE key IN (SELECT value FROM json_each(?))"
    among = json.dumps(sorted(keys))
    with closing(open_to_read(ledger)) as db:
        sums = db.execute(
            f"SELECT total(1.0 * attempts / shared_by), total(input_tokens), total(output_tokens), total(cny) {chosen}",
            (among,),
        ).fetchone()
        last = db.execute(
            f"""SELECT detail {chosen} AND status != 'ok' AND key NOT IN (SELECT key {chosen} AND status = 'ok')
                ORDER BY id DESC LIMIT 1""",
            (among, among),
        ).fetchone()
    calls, read, written, yuan = sums
    return ModeUse(calls, read, written, yuan, failure=last[0] if last else "")


def print_agreement(
    service: str,
    pairs: Sequence[CanaryPair],
    judged: Mapping[JudgeMode, Sequence[JudgedPair]],
    used: Mapping[JudgeMode, ModeUse],
    console: Console,
) -> None:
    """Two tables: what each mode took and how often it agrees with the labels, and how far every two of them agree."""
    modes = Table(title=f"{len(pairs)} pairs judged by {service}", title_justify="left")
    modes.add_column("mode", no_wrap=True)
    for column in ("judged", "failed", "calls", "tokens in", "tokens out", "¥", "as people"):
        modes.add_column(column, justify="right")
    for mode, said in judged.items():
        check, use = summarise(service, mode, 0, said), used[mode]
        counts = (check.judged, check.failed, use.calls, use.input_tokens, use.output_tokens)
        modes.add_row(mode, *(f"{count:,.0f}" for count in counts), f"{use.cost:,.4f}", _shown(check.agreement, ".1%"))
    console.print(modes)
    for mode, use in used.items():
        if use.failure:
            console.print(f"{mode} failed, last with: {use.failure}", markup=False, soft_wrap=True)
    table = Table(title="how far they agree", title_justify="left")
    table.add_column("modes", no_wrap=True)
    for column in ("pairs", "same winner", "κ", "texts", "Spearman", "mean |Δ|"):
        table.add_column(column, justify="right")
    for one, other in combinations(judged, 2):
        agreed = compare_modes(pairs, judged[one], judged[other])
        table.add_row(
            f"{one} – {other}",
            str(agreed.pairs),
            _shown(agreed.same_winner, ".1%"),
            _shown(agreed.kappa, ".3f"),
            str(agreed.rewrites or "–"),
            _shown(agreed.spearman, ".3f"),
            _shown(agreed.difference, ".3f"),
        )
    console.print(table)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


async def measure_agreement(args: argparse.Namespace) -> dict[JudgeMode, list[JudgedPair]]:
    """Judge in every mode and print. Returns what each mode said.

    Raises:
        BadInput: an argument or a file cannot be used.
    """
    tenant, profile, pairs = load_tenant(args.tenant), load_judge(args.judge), read_pairs(args.pairs)
    modes: list[JudgeMode] = list(dict.fromkeys(args.modes))
    if len(modes) < 2:
        raise BadInput("--modes: needs at least two different modes")
    path: Path = args.ledger or Path("outputs") / "canary" / tenant.tenant_id / "ledger.sqlite"
    ledger = LedgerSettings(path=path, run_id="judge_agreement")
    judged: dict[JudgeMode, list[JudgedPair]] = {}
    used: dict[JudgeMode, ModeUse] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        for mode in modes:
            task = bar.add_task(mode, total=len(pairs))
            in_mode = profile.model_copy(update={"mode": mode})
            on_judged = partial(bar.advance, task)
            judged[mode], used[mode] = await judge_in_mode(in_mode, tenant, pairs, ledger, on_judged)
    print_agreement(profile.model, pairs, judged, used, Console())
    return judged


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m reward.judge_agreement",
        description="Judge the same pairs in several modes and show how far they agree and what each costs. "
        "Exit code 1: a mode judged no pair.",
    )
    parser.add_argument("--pairs", required=True, type=Path, metavar="FILE", help="JSONL of labelled pairs")
    parser.add_argument("--tenant", required=True, help="a name in recipes/config/tenant or a YAML file")
    parser.add_argument("--judge", required=True, help="a name in recipes/config/judge or a YAML file")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="two or more (all three)")
    parser.add_argument(
        "--ledger", type=Path, metavar="FILE", help="where answers are kept (outputs/canary/TENANT/ledger.sqlite)"
    )
    args = parser.parse_args(argv)
    judged = asyncio.run(measure_agreement(args))
    return 0 if all(any(pair.judged for pair in said) for said in judged.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
