"""The judge: grades rewrites or compares them, each question asked once (grades: `reward.records.outcome.Verdict`).

What it is asked and what counts as its answer stands in `reward.judge.protocol`, how it is reached in
`reward.judge.chat_api`. A failed or malformed verdict is a failure, never a grade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, inf
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from reward.judge.batching import Batches, Result
from reward.judge.chat_api import ChatApi
from reward.judge.costs import cost_bound, cost_cny, token_bound
from reward.judge.prompt_file import read_prompt_file
from reward.judge.protocol import (
    Comparison,
    Question,
    addresses_siblings,
    asks_facts,
    batched_question,
    pairwise_question,
    pointwise_question,
    question_key,
    render_rubric,
)
from reward.ledger.calls import Calls
from reward.records.call import Answer, Call, CallKind, ServiceFailure, content_key
from reward.records.outcome import Judgement, Verdict
from reward.records.sample import Sample
from reward.settings.recipe import JudgeSettings, TenantSettings
from reward.text.fold import is_same_text

PROMPTS = Path(__file__).with_name("prompts")
_FIRST_VOTE = ("vote", 0)


@dataclass(frozen=True)
class Judged:
    """The comparison, or the failure that left none, and the answers it was made of."""

    judgement: Judgement | ServiceFailure
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class BaselineVotes:
    """The answers of all gradings of one baseline rewrite."""

    answers: tuple[Answer, ...]

    @property
    def verdicts(self) -> list[Verdict]:
        """Of the gradings that succeeded."""
        return [Verdict.model_validate(answer.value) for answer in self.answers if isinstance(answer.value, dict)]

    @property
    def score(self) -> float | ServiceFailure:
        """The median of the gradings, 1 to 5, or of those that succeeded if at least half did."""
        verdicts = self.verdicts
        if 2 * len(verdicts) < len(self.answers):
            return _failure_among(self.answers)
        return median(verdict.overall for verdict in verdicts)


class Judge:
    """Judges for one tenant. Use it from a single event loop; close it with `aclose`. `service` is model and version.

    Raises:
        BadInput: the API key's environment variable is not set, or there is no prompt file of that mode and version.
    """

    def __init__(self, settings: JudgeSettings, tenant: TenantSettings, cny_per_usd: float, calls: Calls):
        prompt = read_prompt(settings)
        self._prompt_key = content_key(prompt)
        self._facts = asks_facts(prompt)
        self._surplus = 1.0  # the most that a call has used, in shares of its bound; at least the bound itself
        self._system = render_rubric(prompt, tenant.system_prompt)
        self._settings, self._tenant, self._calls, self._cny_per_usd = settings, tenant, calls, cny_per_usd
        self._cost = partial(cost_cny, settings.price, cny_per_usd=cny_per_usd)
        self.service = settings.service
        self._api = ChatApi(settings)
        self._batches = Batches(settings.batching, self._ask_together)

    @property
    def mode(self) -> Literal["pointwise", "batched", "pairwise"]:
        return self._settings.mode

    async def judge(self, sample: Sample, policy: str, baseline: str, *, priority: float = 0.0) -> Judged:
        """The policy's rewrite of `sample` against the baseline's.

        Pointwise and batched: the policy's rewrite is graded once, the baseline's as in `grade_baseline`. Pairwise:
        the preference counts only when it holds in both orders. Rewrites that differ in spacing, case or width alone
        are the same text: they tie, and cost no grading beyond the baseline's (pairwise: beyond one call for the grade
        of intent).
        """
        same = is_same_text(policy, baseline)
        if self._settings.mode == "pairwise":
            return await self._judge_pair(sample, baseline if same else policy, baseline, priority)
        asked = self._votes(sample, baseline, priority)
        if not same:
            asked.append(self.grade(sample, policy, _FIRST_VOTE, priority=priority))
        answers = tuple(await asyncio.gather(*asked))
        votes = BaselineVotes(answers[: self._settings.baseline_votes])
        policy_value = None if same else answers[-1].value
        baseline_score = votes.score
        if isinstance(policy_value, ServiceFailure) or isinstance(baseline_score, ServiceFailure):
            return Judged(_failure_among(answers), answers)
        verdict = votes.verdicts[0] if policy_value is None else Verdict.model_validate(policy_value)
        judgement = Judgement(
            mode=self._settings.mode,
            policy=verdict,
            baseline=min(votes.verdicts, key=lambda vote: abs(vote.overall - baseline_score)),
            policy_score=baseline_score if same else verdict.overall,
            baseline_score=baseline_score,
            intent=median(verdict.intent for verdict in votes.verdicts) if same else verdict.intent,
            facts_kept=_majority([vote.facts_kept for vote in votes.verdicts]) if same else verdict.facts_kept,
        )
        return Judged(judgement, answers)

    async def _judge_pair(self, sample: Sample, policy: str, baseline: str, priority: float) -> Judged:
        first, second = await asyncio.gather(
            self.compare(sample, policy, baseline, _FIRST_VOTE, priority=priority),
            self.compare(sample, baseline, policy, _FIRST_VOTE, priority=priority),
        )
        answers = (first, second)
        if not isinstance(first.value, dict) or not isinstance(second.value, dict):
            return Judged(_failure_among(answers), answers)
        as_a, as_b = Comparison.model_validate(first.value), Comparison.model_validate(second.value)
        agreed = as_a.winner == -as_b.winner
        judgement = Judgement(
            mode="pairwise",
            preference=float(as_a.winner) if agreed else 0.0,
            orders_agree=agreed,
            intent=fmean((as_a.a.intent, as_b.b.intent)),
            facts_kept=_majority([as_a.a.facts_kept, as_b.b.facts_kept]),
        )
        return Judged(judgement, answers)

    async def grade_baseline(self, sample: Sample, baseline: str, *, priority: float = 0.0) -> BaselineVotes:
        """The baseline's rewrite, graded `baseline_votes` times (pointwise, batched): once per prompt ever, since all
        further askers find the answers in the ledger."""
        return BaselineVotes(tuple(await asyncio.gather(*self._votes(sample, baseline, priority))))

    def _votes(self, sample: Sample, baseline: str, priority: float) -> list[Coroutine[Any, Any, Answer]]:
        rounds = [("vote", number) for number in range(self._settings.baseline_votes)]
        return [self.grade(sample, baseline, round_, priority=priority) for round_ in rounds]

    async def grade(self, sample: Sample, rewrite: str, round_: Sequence[Any], *, priority: float = 0.0) -> Answer:
        """The `Verdict` of one rewrite as JSON, alone or together with others of the same prompt (mode `batched`).

        Args:
            round_: what sets this grading apart from others of the same text: each round is a call of its own.
        """
        if self._settings.mode == "batched":
            question = batched_question(self._system, sample, [rewrite], facts=self._facts)
            if addresses_siblings(rewrite):
                return await self._once(question, round_, lambda: self._ask_alone(question, priority))
            group = content_key(sample.original_query, sample.context.model_dump(), list(round_))
            return await self._once(question, round_, lambda: self._batches.grade(group, sample, rewrite, priority))
        question = pointwise_question(self._system, sample, rewrite, facts=self._facts)
        return await self._once(question, round_, lambda: self._api.ask(question, priority))

    async def compare(self, sample: Sample, a: str, b: str, round_: Sequence[Any], *, priority: float = 0.0) -> Answer:
        """The `Comparison` of two rewrites in this order as JSON (mode `pairwise`); `round_` as in `grade`."""
        question = pairwise_question(self._system, sample, a, b, facts=self._facts)
        return await self._once(question, round_, lambda: self._api.ask(question, priority))

    async def _once(self, question: Question, round_: Sequence[Any], ask: Callable[[], Awaitable[Result]]) -> Answer:
        call = Call(
            CallKind.JUDGE,
            key=question_key(self._settings, self._prompt_key, question, round_),
            service=self.service,
            tenant=self._tenant.tenant_id,
            # A service that bills more than the cap (hidden reasoning) will do so again.
            token_bound=ceil(self._surplus * token_bound(self._settings, question)),
            cost_bound=self._surplus * cost_bound(self._settings, question, self._cny_per_usd),
        )
        answer = await self._calls.once(call, ask, self._cost)
        if answer.source == "made":
            # What its attempts used, as if all that are allowed had been made.
            scale = self._settings.attempts / max(1, answer.trace.attempts)
            used = scale * (answer.trace.input_tokens + answer.trace.output_tokens)
            most = cost_bound(self._settings, question, self._cny_per_usd) or inf
            tokens = used / token_bound(self._settings, question)
            self._surplus = max(self._surplus, tokens, scale * answer.cost / most)
        return answer

    async def _ask_together(self, sample: Sample, rewrites: Sequence[str], priority: float) -> Result:
        return await self._api.ask(batched_question(self._system, sample, rewrites, facts=self._facts), priority)

    async def _ask_alone(self, question: Question, priority: float) -> Result:
        value, trace = await self._api.ask(question, priority)
        return (value if isinstance(value, ServiceFailure) else value["评分"][0]), trace

    async def aclose(self) -> None:
        await self._batches.aclose()
        await self._api.aclose()


def _majority(said: Sequence[bool | None]) -> bool | None:
    """Return what most say of the facts; kept when they are even, `None` when nobody was asked."""
    known = [kept for kept in said if kept is not None]
    return 2 * sum(known) >= len(known) if known else None


def _failure_among(answers: Sequence[Answer]) -> ServiceFailure:
    """Return the failure to report: a spent budget or quota before all others, since it ends the run."""
    failures = [answer.value for answer in answers if isinstance(answer.value, ServiceFailure)]
    return min(failures, key=lambda failure: not failure.kind.ends_run)


def read_prompt(settings: JudgeSettings) -> str:
    """Read the prompt file of the profile's mode and version.

    Raises:
        BadInput: there is none.
    """
    return read_prompt_file(PROMPTS, f"{settings.mode}-{settings.prompt}", "judge.prompt")
