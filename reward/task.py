"""A task: what a policy writes, and what makes it worth a reward. The engine and the trainer know a task by this alone.

A task is one folder of pure functions beside `reward.rewrite`, chosen by `rewriter.task` of the recipe. It answers the
same questions about every rollout, in this order: parse the completion, gate it, name the calls it needs, combine what
they found. Then it says what the trainer logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from reward.expansion.task import ExpansionTask
from reward.medical.task import MedicalTask
from reward.records.outcome import Abstained, Findings, Gated, Rollout, Scored
from reward.records.request import Request
from reward.records.sample import Sample
from reward.rewrite.task import RewriteTask
from reward.settings.expansion import ExpansionSettings
from reward.settings.medical import MedicalSettings
from reward.settings.recipe import RewardSettings, RewriterSettings, TaskName
from reward.text.terms import Lexicon


class Task(Protocol):
    """One task under the settings of one run. It makes no call; shaping by step is its only state."""

    def parse(self, completion: str) -> str:
        """Return the text that is scored, out of the policy's decoded completion."""
        ...

    def gate(self, sample: Sample, text: str) -> Gated | None:
        """Return why `text` is worthless before any call is made, or None."""
        ...

    def requests(self, sample: Sample, text: str, findings: Findings) -> dict[str, Request]:
        """Name the calls still needed, by the field of `Findings` that each one fills; empty when all is known.

        The scorer makes them side by side and asks again, so that one call may rest on another's answer.
        """
        ...

    def combine(self, sample: Sample, text: str, findings: Findings, step: int) -> Scored | Gated | Abstained:
        """Return the outcome, once `requests` asks for nothing; an abstention where what was found cannot be compared.

        Args:
            step: the trainer's step, from 1.

        Raises:
            ValueError: the findings do not hold what this formula needs.
        """
        ...

    def resume(self, rollouts: Iterable[Rollout]) -> None:
        """Take up the state that the run's earlier rollouts left, given in the order in which they were scored."""
        ...

    def fields(self, rollout: Rollout) -> dict[str, float]:
        """Return what the trainer keeps of a rollout beside score and outcome: one key set for every outcome."""
        ...

    def metrics(self, rollouts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return a step's metrics out of the fields of its rollouts; one without any observation is left out."""
        ...


def open_task(settings: RewriterSettings) -> Task:
    """Return the task of a recipe's `rewriter` node."""
    lexicon = settings.tenant.lexicon
    return make_task(
        settings.task,
        settings.reward,
        lambda sample: lexicon,
        has_judge=(settings.teacher if settings.task == "medical" else settings.judge) is not None,
        expansion=settings.expansion,
        medical=settings.medical,
    )


def make_task(
    name: TaskName,
    reward: RewardSettings,
    lexicon_of: Callable[[Sample], Lexicon],
    *,
    has_judge: bool,
    expansion: ExpansionSettings | None = None,
    medical: MedicalSettings | None = None,
) -> Task:
    """Return a task by name.

    Args:
        lexicon_of: the lexicon of a sample's tenant.
        has_judge: whether a judge, or a teacher, is asked about every rollout.
        expansion, medical: read by the task of that name alone; None: the defaults.
    """
    match name:
        case "rewrite":
            return RewriteTask(reward, lexicon_of, has_judge=has_judge)
        case "expansion":
            return ExpansionTask(reward, expansion or ExpansionSettings())
        case "medical":
            return MedicalTask(medical or MedicalSettings(), has_teacher=has_judge)
