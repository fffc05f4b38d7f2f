"""The tries of one call to a service: limits kept, jittered back-off between them, hedging, failures as values."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt, wait_random_exponential

from reward.records.call import CallTrace, ServiceFailure
from reward.services.limits import Limiter
from reward.settings.recipe import ServiceSettings

LONGEST_RETRY_AFTER = 60.0  # seconds; a service that asks for more is asked again after that


@dataclass(frozen=True, slots=True)
class Try:
    """How one request ended, after `seconds`, with the tokens that the service reported for it.

    `again`: a failure that another try may not have: a time-out, connection trouble, 429, 5xx, a model's broken JSON.
    """

    value: dict[str, Any] | ServiceFailure
    seconds: float
    again: bool
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


async def call_service(
    settings: ServiceSettings,
    limiter: Limiter,
    send: Callable[[], Awaitable[Try]],
    *,
    priority: float = 0.0,
    tokens: int = 0,
) -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
    """The answer of the first try that has one, or the failure that remained after `attempts` tries; and how it went.

    Every try holds a slot of its own, and none during the back-off. With `hedge_after`, a try without an answer by then
    gets a second one beside it; the first success counts, and the other one is cancelled.

    Args:
        send: sends one request within the slot; raises nothing but what is to end the run.
        tokens: the most that one try can use; what it used is put in its place when the service reports it.
    """
    sent: list[Try] = []
    tries, queued = 0, 0.0

    async def send_in_slot(on_sent: Callable[[], None] = _nothing, on_answered: Callable[[], None] = _nothing) -> Try:
        nonlocal tries, queued
        async with limiter.slot(priority=priority, tokens=tokens) as waited:
            tries += 1
            queued += waited
            on_sent()
            one = await send()
            on_answered()  # before the slot goes to somebody else
            sent.append(one)
            if used := one.input_tokens + one.output_tokens:
                limiter.correct_tokens(tokens, used)
            return one

    async def send_hedged() -> Try:
        after = settings.hedge_after
        return await send_in_slot() if after is None else await _first_success(send_in_slot, after)

    first, longest = settings.backoff
    retrying = AsyncRetrying(
        stop=stop_after_attempt(settings.attempts),
        wait=wait_random_exponential(multiplier=first, max=longest),
        retry=retry_if_result(lambda last: last.again),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    last: Try = await retrying(send_hedged)
    value = last.value
    if isinstance(value, ServiceFailure) and tries > 1:
        value = ServiceFailure(f"{value.reason} after {tries} tries", value.kind)
    trace = CallTrace(
        seconds=last.seconds,
        queued=queued,
        tries=tries,
        input_tokens=sum(one.input_tokens for one in sent),
        cached_tokens=sum(one.cached_tokens for one in sent),
        output_tokens=sum(one.output_tokens for one in sent),
    )
    return value, trace


class _Send(Protocol):
    """Waits for a slot, sends one request, and tells when it was sent and answered (or failed), still in its slot."""

    def __call__(self, on_sent: Callable[[], None], on_answered: Callable[[], None]) -> Coroutine[Any, Any, Try]: ...


def _nothing() -> None:
    pass


async def _first_success(send: _Send, after: float) -> Try:
    """A try, and a second one beside it when the first has not answered `after` seconds from its sending."""
    first_sent, second_sent = asyncio.Event(), asyncio.Event()

    async def send_second() -> Try:
        await first_sent.wait()
        await asyncio.sleep(after)
        return await send(second_sent.set, _nothing)

    def give_up_second() -> None:
        if not second_sent.is_set():
            second.cancel()

    second = asyncio.create_task(send_second())
    running = {second, asyncio.create_task(send(first_sent.set, give_up_second))}
    try:
        while True:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            answers = [task.result() for task in done if not task.cancelled()]
            best = min(answers, key=lambda answer: isinstance(answer.value, ServiceFailure))
            # A failure waits for the other try only if that one is on its way.
            if not isinstance(best.value, ServiceFailure) or not running or not second_sent.is_set():
                return best
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def retry_after(header: str | None) -> float:
    """Seconds that a `Retry-After` header (RFC 9110: seconds or an HTTP date) asks for, from 0 to
    `LONGEST_RETRY_AFTER`; 0 for none and for one that cannot be read."""
    if not header:
        return 0.0
    if re.fullmatch(r"\d+(\.\d+)?", header.strip(), re.ASCII):
        seconds = float(header)
    else:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
