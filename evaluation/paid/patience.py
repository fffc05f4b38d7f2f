"""When a paid service is gone: stop asking, so that a comparison ends, and count what was not asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from reward.records.call import FailureKind, ServiceFailure

GIVE_UP_AFTER = 10  # failures in a row: every further call would wait for its time-outs
_A = TypeVar("_A")


class Patience:
    """Asks one service until it is gone. `not_asked` counts the questions after that."""

    def __init__(self) -> None:
        self.not_asked = 0
        self.last_failure = ""
        self._in_a_row = 0
        self._gone: ServiceFailure | None = None

    async def ask(self, question: Callable[[], Awaitable[_A | ServiceFailure]]) -> _A | ServiceFailure:
        """Return the answer, or without asking the failure after which the service was given up."""
        if self._gone is not None:
            self.not_asked += 1
            return self._gone
        answer = await question()
        if not isinstance(answer, ServiceFailure):
            self._in_a_row = 0
            return answer
        self.last_failure = answer.reason
        self._in_a_row += 1
        if answer.kind.ends_run or answer.kind is FailureKind.NOT_AUTHORISED or self._in_a_row >= GIVE_UP_AFTER:
            self._gone = ServiceFailure(f"not asked, after: {answer.reason}", answer.kind)
        return answer
