"""The reward engine of a run: scores rollouts, logs each one, and checks the judge on the canary pairs now and then.

One engine serves a whole run, so that limits, budget and single flight hold for all of it: in the trainer's one reward
worker, or, with `ledger.shared: ray`, in one named actor that any number of workers on any node call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reward.judge.canary import check_canary, read_pairs
from reward.records.call import SCORING_KINDS, Answer, CallKind, ServiceFailure
from reward.records.files import BadInput
from reward.records.outcome import Abstained, AbstainReason, Gated, Rollout, Scored
from reward.records.run_files import CANARY_FILE
from reward.records.sample import Sample
from reward.rollouts.reranker_pin import RerankerPin
from reward.rollouts.rollout_log import FOLDER, RolloutLog, read_rollouts, rollout_files
from reward.scorer import Scorer, Scoring
from reward.settings.recipe import RewriterSettings
from reward.task import Task


class RewardEngine:
    """Use it from a single event loop.

    Args:
        output_dir: of the run: the rollout log and the canary's metrics go there.

    Raises:
        BadInput: the ledger cannot be opened, a variable that holds an API key is not set, or the canary's pairs cannot
            be read, or the run was judged by another reranker than the one that the settings name.
        OSError: the folder of the rollout log cannot be written.
    """

    def __init__(self, settings: RewriterSettings, output_dir: Path):
        self._scorer = Scorer(settings)
        self._pin = RerankerPin(output_dir, settings.reward.reranker)
        self._log = RolloutLog(output_dir / FOLDER)
        self._canary = settings.canary
        self._pairs = read_pairs(settings.canary.file) if settings.canary else []
        self._canary_file = output_dir / CANARY_FILE
        self._canary_task: asyncio.Task[None] | None = None
        self._output_dir, self._has_begun = output_dir, False
        self._canary_step = 0

    async def score(self, sample: Sample, completion: str, step: int) -> dict[str, float | str]:
        """Score and log one rollout; the flat fields that the trainer keeps of it."""
        started = time.time()
        answers: tuple[Answer, ...] = ()
        try:
            self._begin(step)
            self._check_canary(step)
            scoring = await self._scorer.score(sample, completion, step)
            scoring = replace(scoring, rollout=self._pin.held_to(scoring.rollout))
            answers = scoring.answers
            self._log.append(scoring.rollout)
        except (BadInput, OSError) as error:
            outcome = Abstained(reason=AbstainReason.RECORD, detail=str(error))
            now = time.time()
            rollout = Rollout(step=step, time=now, sample=sample, completion=completion, outcome=outcome)
            scoring = Scoring(rollout, answers, started, now)
        return flat_fields(scoring, self._scorer.task)

    async def aclose(self) -> None:
        """Close connections, ledger and log."""
        if self._canary_task is not None:
            self._canary_task.cancel()
        await self._scorer.aclose()
        self._log.close()

    def _begin(self, step: int) -> None:
        """Before the first rollout: a resumed run goes on from what it logged before this step."""
        if self._has_begun:
            return
        self._has_begun = True
        if rollout_files(self._output_dir / FOLDER):
            self._scorer.task.resume(r for r in read_rollouts(self._output_dir) if r.step < step)

    def _check_canary(self, step: int) -> None:
        """Start the check that is due at `step`, beside the rollouts."""
        if self._canary is None or self._scorer.judge is None or step < self._canary_step:
            return
        if self._canary_task is not None:
            if not self._canary_task.done():
                return
            self._canary_task.result()  # a check that could not be recorded must not pass unseen
        self._canary_step = step + self._canary.every_steps
        check = check_canary(self._scorer.judge, self._pairs, step, self._canary, self._canary_file)
        self._canary_task = asyncio.ensure_future(check)


def flat_fields(scoring: Scoring, task: Task) -> dict[str, float | str]:
    """Return the one key set that every rollout reports, whatever its outcome: scalars and strings only.

    Absent numbers are 0; `gated` and `abstained` say which ones are meant. Seconds of calls are those of the calls made
    for this rollout, 0 when none was.
    """
    outcome = scoring.rollout.outcome
    fields: dict[str, float | str] = {
        "score": 0.0 if isinstance(outcome, Abstained) else outcome.reward,
        "abstained": float(isinstance(outcome, Abstained)),
        "gated": float(isinstance(outcome, Gated)),
        "reason": "" if isinstance(outcome, Scored) else outcome.reason.value,
        "failure": outcome.failure.value if isinstance(outcome, Abstained) and outcome.failure else "",
        "detail": "" if isinstance(outcome, Scored) else outcome.detail,
        **task.fields(scoring.rollout),
        "started": scoring.started,
        "ended": scoring.ended,
    }

    # What its calls took.
    for kind in SCORING_KINDS:
        fields |= _call_fields(kind, [answer for answer in scoring.answers if answer.kind is kind])
    made = _made(scoring.answers)
    fields["queued"] = max((answer.trace.queued for answer in made), default=0.0)
    fields["input_tokens"] = float(sum(answer.trace.input_tokens for answer in made))
    fields["output_tokens"] = float(sum(answer.trace.output_tokens for answer in made))
    fields["cost"] = float(sum(answer.cost for answer in made))
    return fields


def _made(answers: Sequence[Answer]) -> list[Answer]:
    """Those that a request was sent for: a spent budget sends none."""
    return [answer for answer in answers if answer.source == "made" and answer.trace.attempts]


def _call_fields(kind: CallKind, answers: Sequence[Answer]) -> dict[str, float | str]:
    """`<kind>_made` counts requests: an answer out of a shared one counts as its share."""
    made = _made(answers)
    return {
        f"{kind}_asked": float(len(answers)),
        f"{kind}_made": float(sum(1 / answer.trace.shared_by for answer in made)),
        f"{kind}_answered": float(len(made)),
        f"{kind}_stored": float(sum(answer.source == "stored" for answer in answers)),
        f"{kind}_joined": float(sum(answer.source == "joined" for answer in answers)),
        f"{kind}_failed": float(sum(isinstance(answer.value, ServiceFailure) for answer in made)),
        f"{kind}_seconds": max((answer.trace.seconds for answer in made), default=0.0),
    }
