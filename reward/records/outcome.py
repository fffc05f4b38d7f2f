"""What comes out of scoring a rollout: evidence, judgement, outcome, and the one record that a run logs of it all."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from reward.records.call import FailureKind
from reward.records.sample import Hit, Record, Sample


class Evidence(Record):
    """What is kept of one retrieval: enough for every formula, small enough to cache by the hundred thousand.

    `top_hits` are the first three without their content; `rank` is that of the best relevant passage, from 1.
    """

    top_hits: tuple[Hit, ...] = ()
    rank: int | None = None

    @property
    def top1(self) -> float:
        return self.top_hits[0].relevance if self.top_hits else 0.0


def relevant_rank(hits: Sequence[Hit], relevant: Sequence[str]) -> int | None:
    """1-based rank of the best relevant passage among `hits`, None when it is not among them."""
    wanted = set(relevant)
    return next((rank for rank, hit in enumerate(hits, start=1) if hit.doc_id in wanted), None)


Grade = Annotated[int, Field(ge=1, le=5, strict=True)]


class Verdict(Record):
    """A judge's grades of one rewrite each from 1 to 5; the JSON names are the rubric's own."""

    quality: Grade = Field(alias="改写质量")
    domain: Grade = Field(alias="领域适配")
    intent: Grade = Field(alias="意图保持")
    retrievability: Grade = Field(alias="可检索性")
    reason: str = Field("", alias="评分理由")

    @property
    def overall(self) -> float:
        """综合得分: the mean of the four grades to two decimals."""
        return round((self.quality + self.domain + self.intent + self.retrievability) / 4, 2)


class Judgement(Record):
    """The judge's comparison of the policy's rewrite with the baseline's.

    Pointwise (and listwise) judging fills the two scores, pairwise judging the preference: +1 when the policy's rewrite
    is preferred in both orders, -1 when the baseline's is, 0 for a tie or when the two orders disagree.
    """

    mode: Literal["pointwise", "listwise", "pairwise"]
    policy: Verdict | None = None
    policy_score: float | None = Field(None, ge=1, le=5)
    baseline_score: float | None = Field(None, ge=1, le=5)
    preference: float | None = Field(None, ge=-1, le=1)
    orders_agree: bool | None = None
    intent: float = Field(ge=1, le=5)


class AbstainReason(StrEnum):
    """Whose fault an unscored rollout is: always our services', never the policy's."""

    RAG = "rag_failed"
    BASELINE = "baseline_failed"
    JUDGE = "judge_failed"
    BUDGET = "budget_spent"
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
    JUDGE_ADDRESSED = "judge_addressed"
    INTENT_LOST = "intent_lost"


class Parts(Record):
    """What a reward is made of; `None` where a term was absent. Top-1 scores and ranks feed the dashboards."""

    retrieval: float | None = None
    judge: float | None = None
    length_penalty: float = 0.0
    bonus: float = 0.0
    shaping: float = 1.0
    weight_retrieval: float = 0.0
    weight_judge: float = 0.0
    policy_top1: float | None = None
    baseline_top1: float | None = None
    policy_rank: int | None = None
    baseline_rank: int | None = None


class Scored(Record):
    kind: Literal["scored"] = "scored"
    reward: float
    parts: Parts


class Gated(Record):
    """The rewrite failed a gate: it trains with the floor reward."""

    kind: Literal["gated"] = "gated"
    reward: float
    reason: GateReason
    detail: str = ""


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
    judgement: Judgement | None = None


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
