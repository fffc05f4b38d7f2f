"""The attempts of one call to a service: its limits kept, jittered back-off between them, failures as values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt, wait_random_exponential

from reward.records.call import CallTrace, ServiceFailure
from reward.services.limits import Limiter
from reward.settings.services import ServiceSettings


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one request ended, after `seconds`, with the tokens that it is booked with.

    Args:
        again: a failure that another attempt may not have: a time-out, connection trouble, 429, 5xx, a model's broken
            JSON.
        estimated: the service reported no usable tokens, those here are the most that it can have used.
    """

    value: dict[str, Any] | ServiceFailure
    seconds: float
    again: bool
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False


def back_off(bounds: tuple[float, float]) -> wait_random_exponential:
    """Return the wait before attempt n + 1, in seconds: drawn from [shortest, min(shortest · 2^n, longest)].

    Full jitter above a floor (Brooker, Exponential Backoff And Jitter, 2015): calls that failed together must not come
    back together.
    """
    shortest, longest = bounds
    return wait_random_exponential(multiplier=2 * shortest, min=shortest, max=longest)


async def call_service(
    settings: ServiceSettings,
    limiter: Limiter,
    send: Callable[[], Awaitable[Attempt]],
    *,
    priority: float = 0.0,
    tokens: int = 0,
) -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
    """Return the answer of the first attempt that has one, or the failure of the last one; and how the call went.

    Every attempt holds a slot of its own, and none during the back-off.

    Args:
        send: sends one request within the slot; raises nothing but what is to end the run.
        tokens: the most that one attempt can use; what it used is put in its place when the service reports it.
    """
    sent: list[Attempt] = []
    queued = 0.0

    async def send_in_slot() -> Attempt:
        nonlocal queued
        async with limiter.slot(priority=priority, tokens=tokens) as waited:
            queued += waited
            one = await send()
            sent.append(one)
            if (used := one.input_tokens + one.output_tokens) and not one.estimated:
                limiter.correct_tokens(tokens, used)
            return one

    # Send until an attempt is final or the last one is spent.
    retrying = AsyncRetrying(
        stop=stop_after_attempt(settings.attempts),
        wait=back_off(settings.backoff),
        retry=retry_if_result(lambda last: last.again),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    last: Attempt = await retrying(send_in_slot)
    # Say how often it was tried, and add up what every attempt used.
    value = last.value
    if isinstance(value, ServiceFailure) and len(sent) > 1:
        value = ServiceFailure(f"{value.reason} ({len(sent)} attempts)", value.kind)
    trace = CallTrace(
        seconds=last.seconds,
        queued=queued,
        attempts=len(sent),
        input_tokens=sum(one.input_tokens for one in sent),
        cached_tokens=sum(one.cached_tokens for one in sent),
        output_tokens=sum(one.output_tokens for one in sent),
        estimated=any(one.estimated for one in sent),
    )
    return value, trace
