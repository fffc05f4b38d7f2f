"""What a comparison will ask for money: shown, and consented to, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from reward.judge.costs import cost_bound, cost_cny
from reward.judge.protocol import Question
from reward.records.call import CallTrace
from reward.records.files import BadInput
from reward.services.http_calls import read_api_key
from reward.settings.chat import ChatSettings

CNY_PER_USD = 7.1
TOKENS_A_CHARACTER = 0.75  # of Chinese: 0.6 to 0.9
REASONING_SHARE = 0.25  # of the cap on output tokens that a reasoning model uses


@dataclass(frozen=True)
class PlannedCalls:
    """Calls of one kind. `most` is what they cost when every attempt is made and every answer is as long as may be."""

    what: str
    service: str
    calls: int
    done: int
    expected_usd: float
    most_usd: float


def check_key(settings: ChatSettings) -> None:
    """Read the API key before anything long begins.

    Raises:
        BadInput: its environment variable is not set.
    """
    if settings.api_key_env:
        read_api_key(settings.api_key_env, settings.base_url)


def plan_calls(
    what: str, settings: ChatSettings, questions: Sequence[Question], calls: int, done: int, output_tokens: int
) -> PlannedCalls:
    """Estimate `calls` calls by typical `questions`.

    Args:
        done: how many of them the ledger has the answers to.
        output_tokens: of a typical answer without reasoning.
    """
    left = max(0, calls - done)
    if settings.price is None or not questions:
        return PlannedCalls(what, settings.service, calls, done, 0.0, 0.0)
    if settings.reasoning_effort is not None:
        output_tokens += round(REASONING_SHARE * settings.max_output_tokens)
    characters = sum(len(question.system) + len(question.user) for question in questions) / len(questions)
    one = CallTrace(input_tokens=TOKENS_A_CHARACTER * characters, output_tokens=output_tokens)
    expected = cost_cny(settings.price, one, CNY_PER_USD) / CNY_PER_USD
    most = sum(cost_bound(settings, question, CNY_PER_USD) for question in questions) / len(questions) / CNY_PER_USD
    return PlannedCalls(what, settings.service, calls, min(done, calls), left * expected, left * most)


def print_plan(console: Console, plan: Sequence[PlannedCalls]) -> None:
    table = Table(title="calls to be paid for, at most", title_justify="left")
    table.add_column("what")
    table.add_column("model")
    for column in ("calls", "already answered", "about $", "at most $"):
        table.add_column(column, justify="right")
    for planned in plan:
        counts = (f"{planned.calls:,}", f"{planned.done:,}")
        table.add_row(
            planned.what, planned.service, *counts, f"{planned.expected_usd:,.2f}", f"{planned.most_usd:,.2f}"
        )
    console.print(table)


def check_consent(plan: Sequence[PlannedCalls], spent: float, max_cost: float | None) -> None:
    """Refuse to begin without a limit, or with one that will not do. Calls that cost nothing need none.

    Args:
        spent: what earlier runs of this comparison have cost, in US dollars, as `max_cost`. Once something is spent the
            plan is too high by every answer that serves twice: then the ledger alone holds the limit.

    Raises:
        BadInput: the plan costs something and `max_cost` is not given, or less than it probably costs.
    """
    expected, most = (sum(getattr(planned, key) for planned in plan) for key in ("expected_usd", "most_usd"))
    if most == 0:
        return
    before = f" (after ${spent:,.2f} spent)" if spent else ""
    if max_cost is None:
        raise BadInput(
            f"nothing was asked: this costs up to about ${expected:,.2f}{before}; allow it with --max-cost USD"
        )
    if not spent and max_cost < expected:
        raise BadInput(f"--max-cost {max_cost:g}: this costs about ${expected:,.2f}; nothing was asked")
