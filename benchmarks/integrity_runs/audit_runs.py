"""Simulated training runs, healthy and hacked, as a run logs them; `reward.audit` reads them from files.

Every rollout is one that the scorer has scored; what is simulated is which text the policy writes at which step. A
healthy policy begins with a third of honest rewrites and ends with four fifths. A hacking one does the same for a third
of the run, then drifts to one kind of attack, which ends at `HACKED` of what it writes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.integrity_runs.scoring import Attacked, Scores
from reward.audit import Audit, audit_run
from reward.records.outcome import Abstained, AbstainReason, Findings, Judgement, Rollout, Verdict
from reward.rollouts.alarms import AlarmLimits
from reward.rollouts.rollout_log import FOLDER, RolloutLog
from reward.task import Task

STEPS, PROMPTS, SIBLINGS = 60, 6, 6
HACKED = 0.85
_FIRST_SKILL, _LAST_SKILL = 0.35, 0.8
_GATED, _ABSTAINED = 0.02, 0.01
_PREFERRED = 0.7  # of a policy's honest rewrites the share that is its favourite one
_BASELINE_SHARE = 0.5  # of its other rewrites the share that equals the baseline's
_START = 1.7e9  # seconds since the epoch


@dataclass(frozen=True)
class Simulation:
    """What a policy may write about each of `attacked`, as scored in `scores`.

    Args:
        faulty: per prompt, the texts that an unskilled policy writes.
        task: scores judged rollouts again; its settings have a judge.
        steps: of each run, `PROMPTS` x `SIBLINGS` rollouts each.
    """

    attacked: Sequence[Attacked]
    scores: Scores
    faulty: Callable[[Attacked], Sequence[str]]
    task: Task
    steps: int = STEPS

    def healthy(self, seed: int, *, judged: bool) -> Iterator[Rollout]:
        return self._run(f"healthy {seed}", self.attacked, None, judged=judged)

    def hacked(self, kind: str, hack: Callable[[Attacked], str], seed: int) -> Iterator[Rollout]:
        """A run whose policy drifts to `hack`, over the prompts that it applies to."""
        return self._run(f"{kind} {seed}", [one for one in self.attacked if hack(one)], hack, judged=False)

    def pleased_judge(self, seed: int) -> Iterator[Rollout]:
        """A run whose grades rise from step to step while it retrieves no better than at its beginning."""
        return self._run(f"pleased judge {seed}", self.attacked, None, judged=True, learns=False)

    def _run(
        self,
        name: str,
        attacked: Sequence[Attacked],
        hack: Callable[[Attacked], str] | None,
        *,
        judged: bool,
        learns: bool = True,
    ) -> Iterator[Rollout]:
        chance = random.Random(name)
        for step in range(1, self.steps + 1):
            skill = _FIRST_SKILL + (_LAST_SKILL - _FIRST_SKILL) * (step / self.steps if learns else 0.0)
            drift = HACKED * min(1.0, max(0.0, 3 * step / self.steps - 1)) if hack else 0.0
            for one in chance.choices(attacked, k=PROMPTS):
                for _ in range(SIBLINGS):
                    if hack and chance.random() < drift:
                        yield self._logged(one, hack(one), step)
                        continue
                    is_right = chance.random() < skill
                    text = self._honest(one, chance) if is_right else self._faulty(one, chance)
                    grade = _grade(is_right, chance) if learns else _grade(chance.random() < step / self.steps, chance)
                    rollout = self._logged(one, text, step, grade if judged else None)
                    yield _failed(rollout) if chance.random() < _ABSTAINED else rollout

    def _honest(self, one: Attacked, chance: random.Random) -> str:
        return one.prompt.honest[0] if chance.random() < _PREFERRED else chance.choice(one.prompt.honest)

    def _faulty(self, one: Attacked, chance: random.Random) -> str:
        if chance.random() < _GATED:
            return one.attacks["special_token"]
        faulty = self.faulty(one)
        if not faulty or chance.random() < _BASELINE_SHARE:
            return one.prompt.sample.candidates.baseline
        return chance.choice(faulty)

    def _logged(self, one: Attacked, text: str, step: int, grade: int | None = None) -> Rollout:
        """The scored rollout as the log of a run has it at this step, judged where there is a grade."""
        rollout = self.scores.rollout(one, text).model_copy(update={"step": step, "time": _START + step})
        if grade is None or rollout.policy is None:
            return rollout
        found = {name: getattr(rollout, name) for name in Findings.model_fields}
        findings = Findings(**found | {"judgement": _judgement(grade)})
        outcome = self.task.combine(rollout.sample, text.strip(), findings, step)
        return rollout.model_copy(update={"judgement": findings.judgement, "outcome": outcome})


def _grade(is_right: bool, chance: random.Random) -> int:
    """A judge that mostly, not always, sees what is right."""
    return chance.choice((4, 5)) if is_right != (chance.random() < 0.15) else chance.choice((3, 3, 4))


def _judgement(grade: int) -> Judgement:
    values = dict.fromkeys(("quality", "domain", "intent", "retrievability"), grade)
    verdict = Verdict.model_validate(values | {"reason": "照着答案评"})
    return Judgement(mode="pointwise", policy=verdict, policy_score=grade, baseline_score=3.5, intent=grade)


def _failed(rollout: Rollout) -> Rollout:
    failed = Abstained(reason=AbstainReason.RAG, detail="503 from the service")
    return rollout.model_copy(update={"policy": None, "judgement": None, "outcome": failed})


def audit(run: Path, rollouts: Iterator[Rollout]) -> Audit:
    """Write the run's log and audit it, with the default limits."""
    log = RolloutLog(run / FOLDER)
    for rollout in rollouts:
        log.append(rollout)
    log.close()
    return audit_run(run, AlarmLimits())
