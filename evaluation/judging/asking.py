"""Ask the judge about the systems' rewrites, each question once ever; stop asking when it is gone.

An answer is in the ledger before it is used: a run that was stopped, or whose judge died, goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from data_prep.baseline.asking import ask_each
from evaluation.paid.patience import Patience
from reward.judge.agreement import JudgedPair
from reward.judge.canary import CanaryPair, judge_pairs
from reward.judge.judge import Judge
from reward.judge.protocol import Comparison
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import FailureKind, ServiceFailure
from reward.records.outcome import Verdict
from reward.records.sample import Sample
from reward.settings.recipe import JudgeSettings, TenantSettings
from reward.text.fold import is_same_text

ROUND = ("evaluation",)
Grades = dict[tuple[int, str], Verdict | ServiceFailure]
Preferences = dict[tuple[int, str, str], "Preference | ServiceFailure"]


@dataclass(frozen=True)
class Preference:
    """+1: the first rewrite is preferred in both orders, -1: the second; 0: a tie, or the orders disagree."""

    value: int
    orders_agree: bool = True


@dataclass
class Verdicts:
    """What the judge said.

    Args:
        grades: (place of the sample, rewrite) -> verdict.
        preferences: (place of the sample, a, b) -> preference.
        labelled: of the pairs that people labelled.
        not_asked: questions that were not asked any more once the judge was given up.
    """

    grades: Grades = field(default_factory=dict)
    preferences: Preferences = field(default_factory=dict)
    labelled: list[JudgedPair] = field(default_factory=list)
    not_asked: int = 0
    last_failure: str = ""


class Panel:
    """One judge in its two modes, for one tenant.

    Raises:
        BadInput: the API key's environment variable is not set, or there is no prompt file of that version.
    """

    def __init__(self, profile: JudgeSettings, tenant: TenantSettings, cny_per_usd: float, calls: Calls):
        modes = ("pointwise", "pairwise")
        self._graders = {
            mode: Judge(profile.model_copy(update={"mode": mode}), tenant, cny_per_usd, calls) for mode in modes
        }
        self._at_once = profile.max_concurrency
        self._patience = Patience()
        self.verdicts = Verdicts()

    async def grade(self, sample: Sample, rewrite: str) -> Verdict | ServiceFailure:
        answer = await self._graders["pointwise"].grade(sample, rewrite, ROUND)
        return Verdict.model_validate(answer.value) if isinstance(answer.value, dict) else answer.value

    async def prefer(self, sample: Sample, a: str, b: str) -> Preference | ServiceFailure:
        """Compare two rewrites in both orders; texts that differ in spacing, case or width alone tie without a call."""
        if is_same_text(a, b):
            return Preference(0)
        judge = self._graders["pairwise"]
        one, other = await asyncio.gather(judge.compare(sample, a, b, ROUND), judge.compare(sample, b, a, ROUND))
        if not isinstance(one.value, dict) or not isinstance(other.value, dict):
            return next(answer.value for answer in (one, other) if isinstance(answer.value, ServiceFailure))
        first, second = Comparison.model_validate(one.value).winner, -Comparison.model_validate(other.value).winner
        return Preference(first if first == second else 0, orders_agree=first == second)

    async def ask_all(
        self,
        samples: Sequence[Sample],
        grades: Iterable[tuple[int, str]],
        preferences: Iterable[tuple[int, str, str]],
        labelled: Sequence[CanaryPair],
        on_answer: Callable[[], None],
    ) -> Verdicts:
        """Ask every question, the profile's number at a time.

        Raises:
            Stopped: a signal came.
            BadInput: the ledger cannot be read or written.
        """
        said = self.verdicts

        async def ask(question: Callable[[], Awaitable[None]]) -> None:
            await question()
            on_answer()

        def graded(key: tuple[int, str]) -> Callable[[], Awaitable[None]]:
            async def question() -> None:
                said.grades[key] = await self._patience.ask(lambda: self.grade(samples[key[0]], key[1]))

            return question

        def preferred(key: tuple[int, str, str]) -> Callable[[], Awaitable[None]]:
            async def question() -> None:
                said.preferences[key] = await self._patience.ask(lambda: self.prefer(samples[key[0]], *key[1:]))

            return question

        def judged(pair: CanaryPair) -> Callable[[], Awaitable[None]]:
            async def question() -> None:
                said.labelled.append(await self._judge_labelled(pair))

            return question

        questions = [*map(judged, labelled), *map(graded, grades), *map(preferred, preferences)]
        await ask_each(questions, ask, lambda _: None, at_once=self._at_once)
        said.not_asked, said.last_failure = self._patience.not_asked, self._patience.last_failure
        return said

    async def _judge_labelled(self, pair: CanaryPair) -> JudgedPair:
        async def judge() -> JudgedPair | ServiceFailure:
            judged, _ = await judge_pairs(self._graders["pairwise"], [pair], ROUND)
            failed = ServiceFailure("a labelled pair was not judged", FailureKind.MALFORMED)
            return judged[0] if judged[0].judged else failed

        judged = await self._patience.ask(judge)
        empty = JudgedPair(pair_id=pair.pair_id, preferred=pair.preferred)
        return empty if isinstance(judged, ServiceFailure) else judged

    async def aclose(self) -> None:
        for judge in self._graders.values():
            await judge.aclose()


def ask_judge(
    profile: JudgeSettings,
    tenant: TenantSettings,
    ledger: Ledger,
    cny_per_usd: float,
    samples: Sequence[Sample],
    grades: Iterable[tuple[int, str]],
    preferences: Iterable[tuple[int, str, str]],
    labelled: Sequence[CanaryPair],
    on_answer: Callable[[], None],
) -> Verdicts:
    """Ask in an event loop of its own; see `Panel.ask_all`."""

    async def run() -> Verdicts:
        panel = Panel(profile, tenant, cny_per_usd, Calls(ledger))
        try:
            return await panel.ask_all(samples, grades, preferences, labelled, on_answer)
        finally:
            await panel.aclose()

    return asyncio.run(run())
