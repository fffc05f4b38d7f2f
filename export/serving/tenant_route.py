"""How one tenant's requests are answered: which arm, within which time, what is mirrored and what is logged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from export.serving.assignment import is_chosen
from export.serving.contract import RewriteRequest
from export.serving.metrics import Metrics
from export.serving.outcome_log import OutcomeLog
from export.serving.rewriters import Rewriter, Rewritten
from export.serving.settings import TenantServing
from reward.records.sample import Sample
from reward.settings.recipe import TenantSettings

ORIGINAL = "original"  # the source of an answer that is the query itself


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets.

    Args:
        text: the rewrite, or the original query.
        arm: the rewriter that was asked.
        source: who made the text: the arm, or `original`.
        failure: why it is the original query, else "".
        version: of the arm's model.
    """

    text: str
    arm: str
    source: str
    failure: str
    version: str
    seconds: float


class TenantRoute:
    """Use it from a single event loop; close it with `aclose`.

    Args:
        rewriters: those of the settings, by name.
    """

    def __init__(
        self,
        tenant: TenantSettings,
        settings: TenantServing,
        rewriters: Mapping[str, Rewriter],
        log: OutcomeLog,
        metrics: Metrics,
    ):
        self.tenant, self.settings, self.rewriters = tenant, settings, rewriters
        self._log, self._metrics = log, metrics
        self._shadows: set[asyncio.Task[None]] = set()

    def arm_of(self, unit: str) -> str:
        """Return the rewriter that answers this user, session or request."""
        test = self.settings.experiment
        if test is not None and is_chosen(test.name, unit, test.share):
            return test.arm
        return self.settings.answer

    async def answer(self, request: RewriteRequest, request_id: str, *, busy: bool = False) -> Answer:
        """Rewrite within the time limit, log it, and mirror it; what cannot be had in time is the original query.

        Args:
            busy: answer with the original query at once.
        """
        unit = request.unit or request_id
        arm, sample = self.arm_of(unit), request.sample(self.tenant)
        answer, cut = await self.rewrite_by(arm, sample, busy=busy)
        self._metrics.count_answer(self.tenant.tenant_id, arm, answer.failure, answer.seconds, cut)
        self._log.write(
            "answer",
            request_id=request_id,
            tenant_id=self.tenant.tenant_id,
            **self._split(),
            arm=arm,
            unit=self._log.unit(unit),
            keyed=bool(request.unit),
            source=answer.source,
            failure=answer.failure,
            version=answer.version,
            ms=round(answer.seconds * 1000, 2),
            cut=cut,
            query=request.query,
            rewritten_query=answer.text,
        )
        if not busy:
            self._mirror(sample, request_id, answer)
        return answer

    def _split(self) -> dict[str, object]:
        """Return what the analysis must know of the test that runs."""
        test = self.settings.experiment
        if test is None:
            return {"experiment": ""}
        return {
            "experiment": test.name,
            "control": self.settings.answer,
            "treatment": test.arm,
            "share": test.share,
        }

    async def rewrite_by(self, arm: str, sample: Sample, *, busy: bool = False) -> tuple[Answer, bool]:
        """Return one rewriter's answer, the original query where it has none in time; and whether it was cut."""
        rewriter, started = self.rewriters[arm], time.perf_counter()
        if busy:
            made = Rewritten("", 0.0, "overloaded", version=rewriter.version)
        else:
            try:
                async with asyncio.timeout(self.settings.timeout):
                    made = await rewriter.rewrite(sample)
            except TimeoutError:
                made = Rewritten("", 0.0, "timeout", version=rewriter.version)
        seconds = time.perf_counter() - started
        if failure := made.failure or ("" if _can_be_seen(made.text) else "empty"):
            original = Answer(sample.original_query, arm, ORIGINAL, failure, made.version, seconds)
            return original, made.cut
        return Answer(made.text, arm, arm, "", made.version, seconds), made.cut

    def _mirror(self, sample: Sample, request_id: str, answer: Answer) -> None:
        """Ask the shadow beside the answer that is on its way."""
        shadow = self.settings.shadow
        if shadow is None or shadow.rewriter == answer.arm or not is_chosen("shadow", request_id, shadow.share):
            return
        if len(self._shadows) >= shadow.max_concurrency:
            self._metrics.count_shadow(self.tenant.tenant_id, shadow.rewriter, "dropped")
            return
        task = asyncio.create_task(self._ask_shadow(shadow.rewriter, sample, request_id, answer))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _ask_shadow(self, name: str, sample: Sample, request_id: str, answer: Answer) -> None:
        mirrored, cut = await self.rewrite_by(name, sample)
        self._metrics.count_shadow(self.tenant.tenant_id, name, mirrored.failure or "answered")
        self._log.write(
            "shadow",
            request_id=request_id,
            tenant_id=self.tenant.tenant_id,
            arm=name,
            answered_by=answer.arm,
            failure=mirrored.failure,
            version=mirrored.version,
            same=not mirrored.failure and mirrored.text == answer.text,
            ms=round(mirrored.seconds * 1000, 2),
            answer_ms=round(answer.seconds * 1000, 2),
            cut=cut,
            query=sample.original_query,
            rewritten_query="" if mirrored.failure else mirrored.text,
        )

    async def aclose(self) -> None:
        """End the shadow calls, and every rewriter."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)
        for rewriter in self.rewriters.values():
            await rewriter.aclose()


def _can_be_seen(text: str) -> bool:
    """Return whether a rewrite has a character to retrieve with: spaces, controls and marks of direction are none."""
    return any(character.isprintable() and not character.isspace() for character in text)
