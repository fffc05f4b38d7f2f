"""One row a rollout or sample, with what is odd about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reward.records.outcome import Abstained, Judgement, Rollout, Scored
from reward.records.sample import Context, Sample
from reward.rollouts.windows import EQUAL, contributions
from reward.text.fold import fold

_AT_ODDS = 0.1  # judge and retrieval on either side of 0 by more than that disagree
WORSE, PAID, AT_ODDS = "worse than the query itself", "paid though worse than the query", "judge against retrieval"
SAME_AS_QUERY, SAME_AS_BASELINE = "same as the query", "same as the baseline"
RECITES, TOO_LONG, NO_SPREAD = "recites a passage", "length penalty", "siblings all earn the same"
# Of a part's name in the page: what it adds to the reward, before that is clipped.
PARTS = ("retrieval", "judge", "length_penalty", "recital_penalty", "idle_penalty", "bonus")


@dataclass
class Row:
    """A rollout, or a sample without an outcome.

    Args:
        number: from 1, in the order of the log.
        step: None for a sample.
        kind: scored, gated, abstained, or sample.
        reason: why it was gated or abstained.
        parts: what each part adds to the reward (`PARTS`), of a scored rollout.
        ranks: of the relevant passage by policy, baseline and plain query; None: not found, absent: not asked.
        judge: grades, scores and reasons, in words.
    """

    number: int
    sample_id: str
    query: str
    context: Context
    rewrite: str
    baseline: str
    kind: str
    step: int | None = None
    split: str = ""
    reason: str = ""
    detail: str = ""
    reward: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    ranks: dict[str, int | None] = field(default_factory=dict)
    judge: str = ""
    slices: tuple[str, ...] = ()
    anomalies: list[str] = field(default_factory=list)


def rollout_rows(rollouts: Iterable[Rollout]) -> Iterator[Row]:
    """Yield a row for each rollout. Siblings are compared when their step is over: memory holds one step."""
    step: list[Row] = []
    for number, rollout in enumerate(rollouts, start=1):
        row = _of_rollout(number, rollout)
        if step and step[0].step != row.step:
            yield from _with_siblings(step)
            step = []
        step.append(row)
    yield from _with_siblings(step)


def sample_rows(samples: Iterable[tuple[int, Sample]]) -> Iterator[Row]:
    """Yield a row for each (row number, sample) of a data set, or of exported rollouts."""
    for number, sample in samples:
        rewrite = sample.candidates.policy or sample.rewritten_query
        row = Row(
            number=number,
            sample_id=sample.sample_id,
            query=sample.original_query,
            context=sample.context,
            rewrite=rewrite,
            baseline=sample.candidates.baseline,
            kind="sample",
            split=sample.metadata.split,
            reward=sample.reward,
            detail=str(sample.evaluation) if sample.evaluation else "",
            slices=sample.metadata.slices,
        )
        row.anomalies = _anomalies_of_text(row)
        yield row


def _of_rollout(number: int, rollout: Rollout) -> Row:
    sample, outcome = rollout.sample, rollout.outcome
    row = Row(
        number=number,
        sample_id=sample.sample_id,
        query=sample.original_query,
        context=sample.context,
        rewrite=rollout.completion.strip(),
        baseline=rollout.baseline_rewrite or sample.candidates.baseline,
        kind=outcome.kind,
        step=rollout.step,
        split=sample.metadata.split,
        reason="" if isinstance(outcome, Scored) else outcome.reason.value,
        detail="" if isinstance(outcome, Scored) else outcome.detail,
        reward=None if isinstance(outcome, Abstained) else outcome.reward,
        parts=contributions(outcome.parts) if isinstance(outcome, Scored) else {},
        judge=_judge(rollout.judgement),
        slices=sample.metadata.slices,
    )
    if sample.relevant_doc_ids:
        evidence = {"policy": rollout.policy, "baseline": rollout.baseline, "plain": rollout.plain}
        row.ranks = {name: one.rank for name, one in evidence.items() if one is not None}
    row.anomalies = [*_anomalies(row, outcome if isinstance(outcome, Scored) else None), *_anomalies_of_text(row)]
    return row


def _anomalies(row: Row, scored: Scored | None) -> list[str]:
    if scored is None:
        return [f"{row.kind}: {row.reason}"]
    found = []
    parts = scored.parts
    if {"policy", "plain"} <= row.ranks.keys() and _rank(row.ranks, "policy") > _rank(row.ranks, "plain"):
        found.append(WORSE)
        if scored.reward > EQUAL:
            found.append(PAID)
    if parts.judge is not None and parts.retrieval is not None:
        low, high = sorted((parts.judge, parts.retrieval))
        if low < -_AT_ODDS and high > _AT_ODDS:
            found.append(AT_ODDS)
    if parts.recital_penalty > 0:
        found.append(RECITES)
    if parts.length_penalty > 0:
        found.append(TOO_LONG)
    return found


def _anomalies_of_text(row: Row) -> list[str]:
    if not row.rewrite:
        return []
    said = fold(row.rewrite).strip()
    others = {SAME_AS_QUERY: row.query, SAME_AS_BASELINE: row.baseline}
    return [name for name, text in others.items() if text and fold(text).strip() == said]


def _with_siblings(rows: Sequence[Row]) -> Sequence[Row]:
    """Mark the rollouts of a prompt that all earned the same: they teach nothing."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.reward is not None and row.split == "train":
            groups.setdefault((row.sample_id, row.query), []).append(row)
    for group in groups.values():
        rewards = [row.reward for row in group if row.reward is not None]
        if len(rewards) > 1 and max(rewards) - min(rewards) < EQUAL:
            for row in group:
                row.anomalies.append(NO_SPREAD)
    return rows


def _rank(ranks: Mapping[str, int | None], name: str) -> float:
    return ranks[name] or float("inf")


def _judge(judgement: Judgement | None) -> str:
    """Say what the judge said: scores or preference, the policy's grades, both reasons."""
    if judgement is None:
        return ""
    said = [f"{judgement.mode}"]
    if judgement.policy_score is not None:
        said.append(f"policy {judgement.policy_score:g}, baseline {judgement.baseline_score}")
    if judgement.preference is not None:
        said.append(f"preference {judgement.preference:+g}")
    for name, verdict in (("policy", judgement.policy), ("baseline", judgement.baseline)):
        if verdict is not None:
            grades: dict[str, Any] = verdict.model_dump(by_alias=True, exclude_none=True)
            said.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in grades.items() if value != ""))
    return "; ".join(said)
