"""Scores one rollout: `(Sample, completion, step) -> Rollout`, with every call made once.

The scorer lives in one event loop. Every call goes through `reward.ledger.calls`: known answers come from the ledger,
identical calls under way are joined, a failed call is forgotten, so that the next rollout tries again.
"""

from __future__ import annotations

import time
from asyncio import gather
from dataclasses import dataclass
from typing import Any

from reward.judge.judge import Judge
from reward.judge.teacher import Teacher, verdict_of
from reward.judge.teacher_archive import ARCHIVE_FOLDER
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import Answer, ServiceFailure
from reward.records.outcome import Abstained, AbstainReason, Evidence, Findings, Outcome, Rollout
from reward.records.request import AskBaseline, AskExpansion, AskJudge, AskRetrieval, AskTeacher, Request
from reward.records.sample import Sample
from reward.services.tenant_services import TenantServices
from reward.settings.recipe import RewriterSettings
from reward.task import Task, open_task

# Whose failure an abstention is, by the call that failed.
_ABSTAINS = {
    AskBaseline: AbstainReason.BASELINE,
    AskRetrieval: AbstainReason.RAG,
    AskJudge: AbstainReason.JUDGE,
    AskExpansion: AbstainReason.RAG,
}


@dataclass(frozen=True)
class Scoring:
    """A scored rollout and every call it asked for; `started` and `ended` are seconds since the epoch."""

    rollout: Rollout
    answers: tuple[Answer, ...]
    started: float
    ended: float


class Scorer:
    """Use it from a single event loop; close it with `aclose`.

    Raises:
        BadInput: the ledger cannot be opened, or a variable that holds an API key is not set.
    """

    def __init__(self, settings: RewriterSettings):
        self.task: Task = open_task(settings)
        self._ledger = Ledger(settings.ledger)
        self.calls = Calls(self._ledger)
        self._services = TenantServices(settings.tenant, settings.reward.top_k, self.calls)
        self.judge: Judge | None = None
        if settings.judge is not None:
            self.judge = Judge(settings.judge, settings.tenant, settings.ledger.cny_per_usd, self.calls)
        self.teacher: Teacher | None = None
        if settings.teacher is not None:
            ledger, archive = settings.ledger, settings.ledger.path.parent / ARCHIVE_FOLDER
            self.teacher = Teacher(settings.teacher, settings.tenant.tenant_id, ledger.cny_per_usd, self.calls, archive)

    async def score(self, sample: Sample, completion: str, step: int) -> Scoring:
        """Score a completion as the task does: parse, gate, make the calls it names, combine.

        Args:
            completion: the policy's text as decoded, special tokens removed.
            step: the trainer's step, from 1.
        """
        started = time.time()
        answers: list[Answer] = []
        findings = Findings()

        def scoring(outcome: Outcome) -> Scoring:
            now = time.time()
            found = {name: getattr(findings, name) for name in Findings.model_fields}
            rollout = Rollout(step=step, time=now, sample=sample, completion=completion, outcome=outcome, **found)
            return Scoring(rollout, tuple(answers), started, now)

        # A worthless text costs no call.
        text = self.task.parse(completion)
        if (gated := self.task.gate(sample, text)) is not None:
            return scoring(gated)

        # Calls that rest on the answers of others come in a later round.
        while requests := self.task.requests(sample, text, findings):
            asked = [self._ask(sample, request, answers) for request in requests.values()]
            found = dict(zip(requests, await gather(*asked), strict=True))
            known = {name: value for name, value in found.items() if not isinstance(value, ServiceFailure)}
            findings = findings.model_copy(update=known)
            failed = [(requests[name], value) for name, value in found.items() if isinstance(value, ServiceFailure)]
            # Without the teacher the task scores by its rules alone, and the rollout says so.
            for _, failure in (one for one in failed if isinstance(one[0], AskTeacher)):
                findings = findings.model_copy(update={"teacher_failure": failure.kind})
            failed = [one for one in failed if not isinstance(one[0], AskTeacher)]
            if failed:
                # One that ends the run comes before the others.
                return scoring(_abstained(*min(failed, key=lambda failure: not failure[1].kind.ends_run)))
        return scoring(self.task.combine(sample, text, findings, step))

    async def _ask(self, sample: Sample, request: Request, answers: list[Answer]) -> Any:
        """Make one call; its value as `Findings` has it, or a `ServiceFailure`. Its answers join `answers`."""
        priority = _priority(sample)
        match request:
            case AskBaseline():
                if sample.candidates.baseline:
                    return sample.candidates.baseline
                answer = await self._services.rewrite(sample, priority=priority)
                answers.append(answer)
                return answer.value if isinstance(answer.value, ServiceFailure) else answer.value["rewritten_query"]
            case AskRetrieval(rewrite):
                if not rewrite:
                    return Evidence()
                answer = await self._services.retrieve(sample, rewrite, priority=priority)
                answers.append(answer)
                failed = isinstance(answer.value, ServiceFailure)
                return answer.value if failed else Evidence.model_validate(answer.value)
            case AskExpansion(lines):
                answer = await self._services.expand(sample, lines, priority=priority)
                answers.append(answer)
                failed = isinstance(answer.value, ServiceFailure)
                return answer.value if failed else Evidence.model_validate(answer.value)
            case AskJudge(policy, baseline):
                assert self.judge is not None, "the task asks a judge only where there is one"
                judged = await self.judge.judge(sample, policy, baseline, priority=priority)
                answers += judged.answers
                return judged.judgement
            case AskTeacher(text):
                assert self.teacher is not None, "the task asks a teacher only where there is one"
                answer = await self.teacher.ask(sample, text)
                answers.append(answer)
                return answer.value if isinstance(answer.value, ServiceFailure) else verdict_of(answer.value)

    async def aclose(self) -> None:
        """Close connections and ledger."""
        await self._services.aclose()
        if self.judge is not None:
            await self.judge.aclose()
        if self.teacher is not None:
            await self.teacher.aclose()
        self._ledger.close()


def _priority(sample: Sample) -> float:
    """In [0, 1]: the worse the baseline did on a prompt, the more there is to learn, the sooner it is served."""
    top1 = sample.metadata.top1_score
    return 0.5 if top1 is None else 1.0 - min(max(top1, 0.0), 1.0)


def _abstained(request: Request, failure: ServiceFailure) -> Abstained:
    reason = _ABSTAINS[type(request)]
    if failure.kind.ends_run:
        reason = AbstainReason.BUDGET
    return Abstained(reason=reason, failure=failure.kind, detail=failure.reason)
