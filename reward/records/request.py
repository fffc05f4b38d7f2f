"""What a task asks of the services about one rollout: values only, `reward.scorer` makes the calls."""

from __future__ import annotations

from dataclasses import dataclass

from reward.records.expansion import Line


@dataclass(frozen=True)
class AskBaseline:
    """The deployed rewriter's rewrite of the sample's query: recorded in the sample, else asked for."""


@dataclass(frozen=True)
class AskRetrieval:
    """What retrieval with `rewrite` finds for the sample: an `Evidence`. An empty rewrite finds nothing."""

    rewrite: str


@dataclass(frozen=True)
class AskJudge:
    """The judge's opinion of the policy's rewrite beside the baseline's: a `Judgement`."""

    policy: str
    baseline: str


@dataclass(frozen=True)
class AskExpansion:
    """What retrieval with the sample's query and typed lines beside it finds: an `Evidence`."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class AskTeacher:
    """The teacher's opinion of a medical answer with its chain: a `TeacherVerdict`."""

    answer: str


Request = AskBaseline | AskRetrieval | AskJudge | AskExpansion | AskTeacher
