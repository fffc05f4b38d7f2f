"""What a call to a chat API costs: the tokens it reports, their price, and the bounds that a budget reserves. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

from reward.judge.protocol import Question
from reward.records.call import CallTrace
from reward.settings.chat import ChatSettings, PriceSettings

# A count beyond so many times the bound is a fault of the report. Hidden reasoning may well be 20 times the cap.
ABSURD = 100


def attempt_tokens(settings: ChatSettings, question: Question) -> tuple[int, int]:
    """Return the most (input, output) tokens that one attempt can cost.

    Input: a token a character and a tenth more (Chinese text runs at 0.6 to 0.9); output: the cap.
    """
    schema = len(json.dumps(question.schema, ensure_ascii=False)) if settings.response_format == "json_schema" else 0
    characters = len(question.system) + len(question.user) + schema
    return ceil(1.1 * characters), settings.max_output_tokens * question.verdicts


def token_bound(settings: ChatSettings, question: Question) -> int:
    """Return the most tokens that one call can cost with all its attempts: each may be billed, because a malformed
    verdict is asked for again."""
    return sum(attempt_tokens(settings, question)) * settings.attempts


def cost_bound(settings: ChatSettings, question: Question, cny_per_usd: float) -> float:
    """Return the most yuan that one call can cost, under the bounds of `token_bound`."""
    read, written = attempt_tokens(settings, question)
    one = CallTrace(input_tokens=read, output_tokens=written)
    return cost_cny(settings.price, one, cny_per_usd) * settings.attempts if settings.price else 0.0


def cost_cny(price: PriceSettings, trace: CallTrace, cny_per_usd: float) -> float:
    """Return what a call cost in yuan: its tokens at the price table's rates."""
    fresh = max(0.0, trace.input_tokens - trace.cached_tokens)
    amount = fresh * price.input + trace.cached_tokens * price.cached_input + trace.output_tokens * price.output
    return amount / 1e6 * (cny_per_usd if price.currency == "USD" else 1.0)


def reported_usage(answer: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the (input, cached input, output) tokens that the service reports; zeros where it reports none usable.

    Usable are `prompt_tokens` and `completion_tokens`, both whole and positive. `completion_tokens` holds the reasoning
    (OpenAI, DeepSeek); where `total_tokens` exceeds the sum of the two, or `reasoning_tokens` exceeds it, the reasoning
    was left out and is added.
    """
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return 0, 0, 0
    read, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if not read or not written:
        return 0, 0, 0
    # Part of the input may be cheaper; part of the output may be named elsewhere only.
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens") if isinstance(details, dict) else usage.get("prompt_cache_hit_tokens"))
    thought = usage.get("completion_tokens_details")
    reasoning = _count(thought.get("reasoning_tokens")) if isinstance(thought, dict) else 0
    unnamed = _count(usage.get("total_tokens")) - read - written
    written += unnamed if unnamed > 0 else reasoning if reasoning > written else 0
    return read, min(cached, read), written


def booked_usage(answer: Mapping[str, Any], most: tuple[int, int]) -> tuple[tuple[int, int, int], bool]:
    """Return the (input, cached input, output) tokens to book for an answer, and whether they are an estimate: `most`,
    the bounds of an attempt, where the service reports nothing usable or a count beyond `ABSURD` times its bound."""
    read, cached, written = reported_usage(answer)
    if not read or read > ABSURD * most[0] or written > ABSURD * most[1]:
        return (most[0], 0, most[1]), True
    return (read, cached, written), False


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
