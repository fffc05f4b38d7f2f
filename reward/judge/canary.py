"""The canary: pairs labelled by people, judged again now and then. Is the judge still the judge it was?

A check asks about every pair anew (its step is part of every ledger key), compares the judge's preference with the
people's, and tells how far the judge has moved since the first check in the same file.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from guard.private_files import keep_private, make_folder
from reward.judge.agreement import CanaryCheck, JudgedPair, Label, add_drift, summarise
from reward.judge.judge import Judge
from reward.judge.protocol import Comparison
from reward.records.call import Answer
from reward.records.files import BadInput, read_records
from reward.records.outcome import JudgeMode, Verdict
from reward.records.sample import Context, Metadata, Record, Sample
from reward.settings.recipe import CanarySettings


class CanaryPair(Record):
    """Two rewrites of one query and the one that people prefer; `note` says why, `origin` where the label is from."""

    pair_id: str
    original_query: str = Field(min_length=1)
    context: Context = Context()
    rewrite_a: str = Field(min_length=1)
    rewrite_b: str = Field(min_length=1)
    preferred: Label
    note: str = ""
    origin: str = ""

    @property
    def sample(self) -> Sample:
        return Sample(
            sample_id=self.pair_id,
            original_query=self.original_query,
            context=self.context,
            metadata=Metadata(tenant_id="canary"),
        )


def read_pairs(path: Path) -> list[CanaryPair]:
    """The pairs of a JSONL file.

    Raises:
        BadInput: no such file, a row that is no pair, an id twice, or fewer than two different labels: agreement
            beyond chance cannot be told then.
    """
    pairs = list(read_records(path, CanaryPair))
    ids = Counter(pair.pair_id for pair in pairs)
    if repeated := [name for name, count in ids.items() if count > 1]:
        raise BadInput(f"{path}: pair_id: {repeated[0]} occurs twice")
    if len({pair.preferred for pair in pairs}) < 2:
        raise BadInput(f"{path}: preferred: needs pairs with at least two different labels")
    return pairs


async def check_canary(
    judge: Judge, pairs: Sequence[CanaryPair], step: int, settings: CanarySettings, file: Path
) -> None:
    """Check number `step`: its figures become a line of `file`, its verdicts lines of the `…_verdicts.jsonl` beside it.

    Drift is measured against the first check of that mode in `file`. The same step again is answered from the ledger.
    """
    judged, cost = await judge_pairs(judge, pairs, ("canary", step))
    now = summarise(judge.service, judge.mode, step, judged, cost)
    check = add_drift(now, judged, *_first_check(file, judge.mode), limit=settings.drift)
    make_folder(file.parent)
    with open(verdicts_file(file), "a", encoding="utf-8", opener=keep_private) as out:
        out.writelines(pair.model_copy(update={"step": step}).model_dump_json() + "\n" for pair in judged)
    with open(file, "a", encoding="utf-8", opener=keep_private) as out:
        out.write(check.model_dump_json() + "\n")


async def judge_pairs(
    judge: Judge, pairs: Sequence[CanaryPair], round_: Sequence[Any], on_judged: Callable[[], None] = lambda: None
) -> tuple[list[JudgedPair], float]:
    """What the judge says of every pair, and the yuan it took; `round_` as in `Judge.grade`.

    Args:
        on_judged: called once for each pair, when it was judged or has failed.
    """
    ask = _compare_in_both_orders if judge.mode == "pairwise" else _grade_both

    async def judge_one(pair: CanaryPair) -> tuple[JudgedPair, float]:
        judged = await ask(judge, pair, round_)
        on_judged()
        return judged

    results = await asyncio.gather(*(judge_one(pair) for pair in pairs))
    return [pair for pair, _ in results], sum(cost for _, cost in results)


def verdicts_file(file: Path) -> Path:
    return file.with_name(f"{file.stem}_verdicts.jsonl")


def _first_check(file: Path, mode: JudgeMode) -> tuple[CanaryCheck | None, list[JudgedPair]]:
    """The first check in that mode that could tell how well the judge agrees, and its verdicts.

    Raises:
        BadInput: one of the two files holds something else.
    """
    if not file.is_file():
        return None, []
    first = next(
        (check for check in read_records(file, CanaryCheck) if check.mode == mode and check.kappa is not None), None
    )
    verdicts = verdicts_file(file)
    if first is None or not verdicts.is_file():
        return first, []
    return first, [pair for pair in read_records(verdicts, JudgedPair) if pair.step == first.step]


async def _grade_both(judge: Judge, pair: CanaryPair, round_: Sequence[Any]) -> tuple[JudgedPair, float]:
    asked = (judge.grade(pair.sample, rewrite, round_) for rewrite in (pair.rewrite_a, pair.rewrite_b))
    a, b = await asyncio.gather(*asked)
    judged = JudgedPair(pair_id=pair.pair_id, preferred=pair.preferred)
    if isinstance(a.value, dict) and isinstance(b.value, dict):
        score_a, score_b = (Verdict.model_validate(answer.value).overall for answer in (a, b))
        label = _label(score_a - score_b)
        judged = judged.model_copy(update={"judged": label, "score_a": score_a, "score_b": score_b})
    return judged, a.cost + b.cost


async def _compare_in_both_orders(judge: Judge, pair: CanaryPair, round_: Sequence[Any]) -> tuple[JudgedPair, float]:
    a_first, b_first = await asyncio.gather(
        judge.compare(pair.sample, pair.rewrite_a, pair.rewrite_b, round_),
        judge.compare(pair.sample, pair.rewrite_b, pair.rewrite_a, round_),
    )
    judged = JudgedPair(pair_id=pair.pair_id, preferred=pair.preferred)
    if isinstance(a_first.value, dict) and isinstance(b_first.value, dict):
        orders = _label(_winner(a_first)), _label(-_winner(b_first))
        label: Label = orders[0] if orders[0] == orders[1] else "tie"
        judged = judged.model_copy(update={"judged": label, "orders": orders})
    return judged, a_first.cost + b_first.cost


def _winner(answer: Answer) -> int:
    return Comparison.model_validate(answer.value).winner


def _label(difference: float) -> Label:
    return "a" if difference > 0 else "b" if difference < 0 else "tie"
