"""The ledger: every call to a service, one row a call, in one SQLite file. It is cache, audit and budget in one.

A row is committed before its answer is used, so a killed run repeats no call it paid for: the write-ahead log survives
`kill -9` at any moment (`synchronous=NORMAL`: a power cut may cost the last rows, never the file). Any number of
processes of one machine may share a file; SQLite's write-ahead log does not work on network file systems.

A ledger that cannot be read or written stops the run: the method raises `BadInput` with one line, from then on
`find` and `reserve` raise it too, so that nothing further is paid for, and no answer that was not recorded is scored.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cachetools import LRUCache

from guard.personal.masking import mask_message
from reward.ledger.ledger_file import explain, make_if_missing, open_checked
from reward.records.call import Call, CallKind, CallTrace, FailureKind, ServiceFailure
from reward.records.files import BadInput
from reward.settings.recipe import BudgetLimits, LedgerSettings

OK = "ok"  # the status of a call that was answered; any other status is a FailureKind
DETAIL_CHARACTERS = 300
REMEMBERED_PASSAGES = 50_000  # keys of passages that need not be written again: 10 MB at most

_INSERT = """INSERT INTO calls (time, run_id, kind, key, service, tenant, input_tokens, cached_tokens, output_tokens,
    cny, usd, latency, queued, attempts, shared_by, estimated, status, detail, value)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_KEEP_PASSAGE = "INSERT OR IGNORE INTO passages (key, content) VALUES (?, ?)"
_FIND = "SELECT value FROM calls WHERE key = ? AND status = 'ok' ORDER BY id LIMIT 1"
# Ids only grow and follow the order of commits, so "what came since the last look" is a range of the primary key,
# whichever process wrote it.
_SPENT_SINCE = """SELECT max(id), run_id, substr(time, 1, 10), kind,
    sum(1.0 / shared_by), sum(input_tokens + output_tokens), sum(cny) FROM calls WHERE id > ? GROUP BY 2, 3, 4"""
_PAID = frozenset(kind.value for kind in CallKind if kind.is_paid)
_ROUNDING = 1e-9  # ten times ¥0.1 make ¥1, whatever floats say


@dataclass
class _Spending:
    calls: float = 0.0
    tokens: float = 0.0
    cny: float = 0.0

    def add(self, calls: float, tokens: float, cny: float) -> None:
        self.calls += calls
        self.tokens += tokens
        self.cny += cny


class Ledger:
    """Hold the ledger file of `settings.path`, made when it does not exist. For one thread at a time; not to be forked.

    Budgets (`settings.run`, `settings.day`) are over paid kinds of calls, in every row of the file that bears this
    run's id or today's date (UTC), other processes' rows included: a resumed run continues where it stood. What other
    processes have under way but not yet recorded is not seen: n of them may exceed a day's budget by the bounds of
    the calls they have in flight. A batched call counts as one, a share of it for each of its answers.

    Raises:
        BadInput: the file cannot be opened or made, is damaged, or is no ledger that this program reads.
    """

    def __init__(self, settings: LedgerSettings):
        self._settings = settings
        self._path = settings.path
        self._failure: str | None = None
        self._limited = any(limit is not None for budget in (settings.run, settings.day) for _, limit in budget)
        self._by_run: defaultdict[str, _Spending] = defaultdict(_Spending)
        self._by_day: defaultdict[str, _Spending] = defaultdict(_Spending)
        self._last_seen = 0
        self._kept_passages: LRUCache[str, None] = LRUCache(REMEMBERED_PASSAGES)
        self._reservations: Counter[Call] = Counter()
        self._reserved = _Spending()
        make_if_missing(self._path)
        self._db = open_checked(self._path, "mode=rw")
        with self._stopping("cannot be opened"):
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._read_spending()

    def find(self, key: str) -> dict[str, Any] | None:
        """The recorded answer to a call; of several the first. A failure is never an answer.

        Raises:
            BadInput: the file cannot be read, or an earlier answer could not be recorded.
        """
        self._raise_if_stopped()
        with self._stopping("cannot be read"):
            row = self._db.execute(_FIND, (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def reserve(self, call: Call) -> ServiceFailure | None:
        """Set aside what `call` can cost at most, or say which budget that would exceed. `record` books the real cost.

        Set aside are the call's bounds, once: a caller whose attempts may each be billed states bounds for all of them.
        Calls of unpaid kinds need no reservation and get none.

        Raises:
            BadInput: the file cannot be read, or an earlier answer could not be recorded.
        """
        self._raise_if_stopped()
        if not self._limited or not call.kind.is_paid:
            return None
        with self._stopping("cannot be read"):
            self._read_spending()
        settings, today = self._settings, self._by_day[_now()[:10]]
        excess = _excess("run", settings.run, self._by_run[settings.run_id], self._reserved, call) or _excess(
            "day", settings.day, today, self._reserved, call
        )
        if excess:
            return ServiceFailure(excess, FailureKind.BUDGET_SPENT)
        self._reservations[call] += 1
        self._reserved.add(1, call.token_bound, call.cost_bound)
        return None

    def release(self, call: Call) -> None:
        """Give back the reservation of a call that ended without a result to record; nothing when there is none."""
        if self._reservations[call] > 1:
            self._reservations[call] -= 1
        elif not self._reservations.pop(call, 0):
            return
        if self._reservations:
            self._reserved.add(-1, -call.token_bound, -call.cost_bound)
        else:
            self._reserved = _Spending()  # sheds what rounding left

    def record(self, call: Call, value: dict[str, Any] | ServiceFailure, trace: CallTrace, cost: float) -> None:
        """Write how a call went and what it cost (yuan), and give back its reservation. No kill undoes it then.

        Raises:
            BadInput: the row could not be written (locked for too long, disk full): the answer must not be used.
        """
        self.release(call)
        if isinstance(value, ServiceFailure):
            status, detail, answer = value.kind.value, " ".join(value.reason.split())[:DETAIL_CHARACTERS], None
        else:
            status, detail, answer = OK, "", _storable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
        row = (
            _now(),
            self._settings.run_id,
            call.kind.value,
            call.key,
            call.service,
            call.tenant,
            trace.input_tokens,
            trace.cached_tokens,
            trace.output_tokens,
            cost,
            cost / self._settings.cny_per_usd,
            trace.seconds,
            trace.queued,
            trace.attempts,
            trace.shared_by,
            int(trace.estimated),
            status,
            _storable(detail),
            answer,
        )
        with self._stopping("cannot be written, so the answer to a call was lost and the run stops"):
            self._db.execute(_INSERT, row)

    def keep_passages(self, passages: Mapping[str, str]) -> None:
        """Keep the contents of retrieved passages by their keys, each once, for `reward.export_rollouts`: personal data
        is masked.

        Raises:
            BadInput: they could not be written.
        """
        new = [(key, _storable(mask_message(text))) for key, text in passages.items() if key not in self._kept_passages]
        if not new:
            return
        # One transaction for all of them; the inner block ends it.
        with self._stopping("cannot be written"), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_KEEP_PASSAGE, new)
        self._kept_passages.update((key, None) for key, _ in new)

    def close(self) -> None:
        self._db.close()

    def _read_spending(self) -> None:
        if not self._limited:
            return
        for last, run_id, day, kind, calls, tokens, cny in self._db.execute(_SPENT_SINCE, (self._last_seen,)):
            self._last_seen = max(self._last_seen, last)
            if kind in _PAID:
                self._by_run[run_id].add(calls, tokens, cny)
                self._by_day[day].add(calls, tokens, cny)

    def _raise_if_stopped(self) -> None:
        if self._failure:
            raise BadInput(self._failure)

    @contextmanager
    def _stopping(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._failure = explain(self._path, what, error)
            # Calls still under way try to record their answers too; the event loop waits for a lock only once.
            self._db.execute("PRAGMA busy_timeout = 0")
            raise BadInput(self._failure) from None


def _excess(name: str, limits: BudgetLimits, spent: _Spending, reserved: _Spending, call: Call) -> str | None:
    """Which limit of a budget `call` could exceed, in words; `None` when there is room."""
    for limit, taken, bound, form in (
        (limits.cny, spent.cny + reserved.cny, call.cost_bound, "¥{:,.2f}"),
        (limits.calls, spent.calls + reserved.calls, 1, "{:,.0f} calls"),
        (limits.tokens, spent.tokens + reserved.tokens, call.token_bound, "{:,.0f} tokens"),
    ):
        if limit is not None and taken + bound > limit + _ROUNDING:
            return f"{name} budget of {form.format(limit)} would be exceeded: {form.format(taken)} spent or reserved"
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _storable(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot hold, as `\\udxxx`: inside JSON that is the same string."""
    return text.encode("utf-8", "backslashreplace").decode()
