"""What a call to a service is: its identity, how it went, and what it answered. Values only, no I/O."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal


class CallKind(StrEnum):
    RAG = "rag"
    BASELINE = "baseline"
    JUDGE = "judge"
    TEACHER = "teacher"  # a stronger model's opinion of an answer
    PROMPTED = "prompted"  # a rewrite by a prompted model, in an evaluation

    @property
    def is_paid(self) -> bool:
        """Whether calls of this kind count against the budgets."""
        return self in (CallKind.JUDGE, CallKind.TEACHER, CallKind.PROMPTED)


# What a rollout's score is made with.
SCORING_KINDS = (CallKind.RAG, CallKind.BASELINE, CallKind.JUDGE, CallKind.TEACHER)


class FailureKind(StrEnum):
    """How a call to a service failed after its retries."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    NOT_AUTHORISED = "not_authorised"
    REJECTED = "rejected"  # any other 4xx: the request itself is at fault
    MALFORMED = "malformed"  # an answer that is not what the contract says
    REFUSED = "refused"  # a model that would not answer
    BUDGET_SPENT = "budget_spent"
    QUOTA_EXHAUSTED = "quota_exhausted"  # the account at the provider has nothing left
    NOT_CONFIGURED = "not_configured"

    @property
    def ends_run(self) -> bool:
        """Say whether nothing further can be had until somebody pays: waiting and asking again are in vain."""
        return self in (FailureKind.BUDGET_SPENT, FailureKind.QUOTA_EXHAUSTED)


@dataclass(frozen=True)
class ServiceFailure:
    """A call that failed after its retries, and why. Never a score."""

    reason: str
    kind: FailureKind


@dataclass(frozen=True)
class CallTrace:
    """How one call went, all its attempts together.

    Args:
        seconds: latency of the try that ended it, without queueing and back-off.
        queued: seconds spent waiting for a slot under the service's limits.
        attempts: requests sent.
        input_tokens, cached_tokens, output_tokens: as the service reports them, all attempts together; cached ones are
            part of the input ones.
        shared_by: how many verdicts this one request produced (a batched call): each carries its share of the tokens.
        estimated: an attempt's tokens are its bound, because the service reported none that can be used.
    """

    seconds: float = 0.0
    queued: float = 0.0
    attempts: int = 0
    input_tokens: float = 0.0
    cached_tokens: float = 0.0
    output_tokens: float = 0.0
    shared_by: int = 1
    estimated: bool = False


@dataclass(frozen=True)
class Call:
    """What is asked of whom. Two calls with the same `key` have the same answer.

    Args:
        key: content hash (`content_key`) of everything that determines the answer.
        service: model and version, or base URL: for the ledger's reader, not part of the identity.
        token_bound: the most tokens, input and output together, that the call can cost with all its attempts; what a
            budget reserves.
        cost_bound: the most yuan that it can cost with all its attempts.
    """

    kind: CallKind
    key: str
    service: str
    tenant: str
    token_bound: int = 0
    cost_bound: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A call's JSON object or its failure, and what it took.

    `source`: `made` = a request was sent for this answer; `stored` = the ledger or the memory had it; `joined` = an
    identical call was under way. Only a made answer has costs.
    """

    kind: CallKind
    value: dict[str, Any] | ServiceFailure
    source: Literal["made", "stored", "joined"]
    trace: CallTrace = CallTrace()
    cost: float = 0.0  # yuan


def content_key(*parts: Any) -> str:
    """Return the SHA-256 of the parts' JSON: equal for equal content, on every machine."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True, sort_keys=True).encode()).hexdigest()
