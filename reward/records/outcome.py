"""What comes out of scoring a rollout: evidence, judgement, outcome, and the one record that a run logs of it all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Strict

from reward.records.call import FailureKind
from reward.records.expansion import ExpansionParts
from reward.records.medical import MedicalParts, TeacherVerdict
from reward.records.sample import Hit, Record, Sample


class Evidence(Record):
    """What is kept of one retrieval: enough for every formula, small enough to cache by the hundred thousand.

    Args:
        top_hits: the first three, without their content.
        rank: of the best relevant passage, from 1.
        passages: keys (`passage_key`) of the contents of `top_hits`, which the ledger keeps once each.
        origin: what gave the hits their scores: the reranker's name, `fused` (the engine's `score` alone), or "" where
            it is unknown or no hit has a score. Scores of unequal origins are never compared.
        copied_run: how much of a hit the rewrite recites (`reward.text.units.copied_run`).
        idle_units: how many units of the rewrite the passage that pays does not hold (`reward.text.units.idle_units`).
        lacks_ids: a hit has no `doc_id`, so that a relevant passage may be among them unseen.
        lacks_scores: there are hits, and none has a score.
        unsearched: kinds of typed line that the service did not search with.
    """

    top_hits: tuple[Hit, ...] = ()
    rank: int | None = None
    passages: tuple[str, ...] = ()
    origin: str = ""
    copied_run: int = 0
    idle_units: int = 0
    lacks_ids: bool = False
    lacks_scores: bool = False
    unsearched: tuple[str, ...] = ()

    @property
    def top1(self) -> float:
        return self.top_hits[0].relevance if self.top_hits else 0.0


def why_unusable(evidence: Evidence, *, needs_ids: bool, needs_scores: bool) -> str | None:
    """Say why a retrieval cannot be scored, None when it can.

    Args:
        needs_ids: relevant passages are known, and their rank is what counts.
        needs_scores: the hits' scores are what counts.
    """
    if needs_ids and evidence.lacks_ids:
        return "hits without doc_id, while the relevant passages are known by their ids"
    if needs_scores and evidence.lacks_scores:
        return "hits without any score"
    return None


def passage_key(content: str) -> str:
    """Return the key under which the ledger keeps a passage's content: equal for equal content."""
    return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def relevant_rank(hits: Sequence[Hit], relevant: Sequence[str]) -> int | None:
    """1-based rank of the best relevant passage among `hits`, None when it is not among them."""
    wanted = set(relevant)
    return next((rank for rank, hit in enumerate(hits, start=1) if hit.doc_id in wanted), None)


Grade = Annotated[int, Field(ge=1, le=5, strict=True)]
# A judge's yes or no, in its own words or as JSON has it.
YesOrNo = Annotated[bool, BeforeValidator(lambda said: {"是": True, "否": False}.get(said, said)), Strict()]


class Verdict(Record):
    """A judge's grades of one rewrite, each from 1 to 5; the JSON names are the rubric's own.

    `facts_kept`: numbers, groups of people, products and negations are those of the query and its context; `None` where
    the prompt does not ask (`v1`).
    """

    quality: Grade = Field(alias="改写质量")
    domain: Grade = Field(alias="领域适配")
    intent: Grade = Field(alias="意图保持")
    retrievability: Grade = Field(alias="可检索性")
    facts_kept: YesOrNo | None = Field(None, alias="事实一致")
    reason: str = Field("", alias="评分理由")

    @property
    def overall(self) -> float:
        """Return 综合得分, the mean of the four grades to two decimals."""
        return round((self.quality + self.domain + self.intent + self.retrievability) / 4, 2)


# Logs of earlier runs call it listwise.
JudgeMode = Annotated[
    Literal["pointwise", "batched", "pairwise"], BeforeValidator(lambda mode: "batched" if mode == "listwise" else mode)
]


class Judgement(Record):
    """The judge's comparison of the policy's rewrite with the baseline's.

    Pointwise (and batched) judging fills the two scores, pairwise judging the preference: +1 when the policy's rewrite
    is preferred in both orders, -1 when the baseline's is, 0 for a tie or when the two orders disagree. `baseline` is
    the verdict whose 综合得分 is nearest to the median of its votes. `facts_kept` is of the policy's rewrite, `None`
    where the prompt does not ask; in pairs it is lost when both orders say so.
    """

    mode: JudgeMode
    policy: Verdict | None = None
    baseline: Verdict | None = None
    policy_score: float | None = Field(None, ge=1, le=5)
    baseline_score: float | None = Field(None, ge=1, le=5)
    preference: float | None = Field(None, ge=-1, le=1)
    orders_agree: bool | None = None
    intent: float = Field(ge=1, le=5)
    facts_kept: bool | None = None


class AbstainReason(StrEnum):
    """Whose fault an unscored rollout is: always our services', never the policy's."""

    RAG = "rag_failed"
    BASELINE = "baseline_failed"
    JUDGE = "judge_failed"
    BUDGET = "budget_spent"
    CONFLICT = "teacher_conflict"  # teacher and rules contradict each other about a danger (medical)
    RECORD = "record_failed"  # the ledger or the rollout log could not be written: nothing is scored off the record


class GateReason(StrEnum):
    """Why a rewrite is worthless whatever it retrieves (the policy's fault)."""

    EMPTY = "empty"
    UNPARSEABLE = "unparseable"
    TEMPLATE_LEAK = "template_leak"
    TOO_LONG = "too_long"
    LANGUAGE_SWITCH = "language_switch"
    NUMBER_INVENTED = "number_invented"
    NUMBER_DROPPED = "number_dropped"
    NEGATION_DROPPED = "negation_dropped"
    NEGATION_ADDED = "negation_added"
    TERM_DROPPED = "protected_term_dropped"
    TERM_INVENTED = "protected_term_invented"
    PRODUCT_DROPPED = "product_dropped"
    PRODUCT_INVENTED = "product_invented"
    NAME_DROPPED = "name_dropped"
    JUDGE_ADDRESSED = "judge_addressed"
    INTENT_LOST = "intent_lost"
    FACTS_LOST = "facts_lost"
    # of medical answers (`reward.records.medical.Fault`)
    EMERGENCY_MISSED = "emergency_missed"
    RISKY_ADVICE = "risky_advice"
    HARM_ASSISTED = "harm_assisted"
    CARE_DISCOURAGED = "care_discouraged"
    FALSE_ALARM = "false_alarm"
    REFUSAL = "refusal"
    QUESTION_COPIED = "question_copied"
    STUFFED = "stuffed"
    NO_ANSWER = "no_answer"


class Parts(Record):
    """What a reward is made of; `None` where a term was absent. Top-1 scores and ranks feed the dashboards.

    `versus_baseline` weighs retrieval and judge against the baseline alone: its sign says who won. `new_content`,
    `copied_run` and `idle_units` measure the text (`reward.text.units`). `lexical` is 1 where a lexical scorer stood in
    for a reranker. A task's own numbers are in a record of its own: `expansion`, `medical`.
    """

    retrieval: float | None = None
    judge: float | None = None
    length_penalty: float = 0.0
    recital_penalty: float = 0.0
    idle_penalty: float = 0.0
    bonus: float = 0.0
    shaping: float = 1.0
    weight_retrieval: float = 0.0
    weight_judge: float = 0.0
    policy_top1: float | None = None
    baseline_top1: float | None = None
    policy_rank: int | None = None
    baseline_rank: int | None = None
    plain_rank: int | None = None
    versus_baseline: float = 0.0
    new_content: float | None = None
    copied_run: int = 0
    idle_units: int = 0
    lexical: float = 0.0
    expansion: ExpansionParts | None = None
    medical: MedicalParts | None = None


class Scored(Record):
    kind: Literal["scored"] = "scored"
    reward: float
    parts: Parts


class Gated(Record):
    """The rewrite failed a gate: it trains with the floor reward. `parts` where the text was measured all the same."""

    kind: Literal["gated"] = "gated"
    reward: float
    reason: GateReason
    detail: str = ""
    parts: Parts | None = None


class Abstained(Record):
    """Our services failed: no number, never trained on, always counted."""

    kind: Literal["abstained"] = "abstained"
    reason: AbstainReason
    failure: FailureKind | None = None
    detail: str = ""


Outcome = Annotated[Scored | Gated | Abstained, Field(discriminator="kind")]


class Findings(Record):
    """What the calls about one completion found; empty or `None` where nothing was asked, or the call failed.

    A task names the fields it fills (`reward.task.Task.requests`).
    """

    baseline_rewrite: str = ""
    policy: Evidence | None = None
    baseline: Evidence | None = None
    plain: Evidence | None = None  # of the original query as it stands
    judgement: Judgement | None = None
    teacher: TeacherVerdict | None = None
    teacher_failure: FailureKind | None = None  # the teacher was down: the rules alone score


class Rollout(Findings):
    """One scored completion with everything its reward was made of: a run's log holds one a line, and `reward.replay`
    scores it again without a call.

    `time` is seconds since the epoch.
    """

    step: int
    time: float
    sample: Sample
    completion: str
    outcome: Outcome
