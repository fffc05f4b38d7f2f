"""What a judge's call costs: the tokens it reports, their price, and the bounds that a budget reserves. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

from reward.judge.protocol import Question
from reward.records.call import CallTrace
from reward.settings.recipe import JudgeSettings, PriceSettings


def attempt_tokens(settings: JudgeSettings, question: Question) -> tuple[int, int]:
    """The most (input, output) tokens that one try can cost.

    Input: a token a character and a tenth more (Chinese text runs at 0.6 to 0.9); output: the cap.
    """
    schema = len(json.dumps(question.schema, ensure_ascii=False)) if settings.response_format == "json_schema" else 0
    characters = len(question.system) + len(question.user) + schema
    return ceil(1.1 * characters), settings.max_output_tokens * question.verdicts


def token_bound(settings: JudgeSettings, question: Question) -> int:
    """Return the most tokens that one call can cost with all its attempts: each may be billed, because a malformed
    verdict is asked for again."""
    return sum(attempt_tokens(settings, question)) * settings.attempts


def cost_bound(settings: JudgeSettings, question: Question, cny_per_usd: float) -> float:
    """The most yuan that one call can cost, under the bounds of `token_bound`."""
    read, written = attempt_tokens(settings, question)
    one = CallTrace(input_tokens=read, output_tokens=written)
    return cost_cny(settings.price, one, cny_per_usd) * settings.attempts


def cost_cny(price: PriceSettings, trace: CallTrace, cny_per_usd: float) -> float:
    """What a call cost in yuan: its tokens at the price table's rates."""
    fresh = max(0.0, trace.input_tokens - trace.cached_tokens)
    amount = fresh * price.input + trace.cached_tokens * price.cached_input + trace.output_tokens * price.output
    return amount / 1e6 * (cny_per_usd if price.currency == "USD" else 1.0)


def reported_usage(answer: Mapping[str, Any]) -> tuple[int, int, int]:
    """(input, cached input, output) tokens as the service reports them; 0 for what it leaves out."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return 0, 0, 0
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else usage.get("prompt_cache_hit_tokens")
    counts = (usage.get("prompt_tokens"), cached, usage.get("completion_tokens"))
    read, hit, written = (c if isinstance(c, int) and c > 0 else 0 for c in counts)
    return read, min(hit, read), written
