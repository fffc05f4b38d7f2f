"""Fill the rows of a spool: first what the ledger knows of them, then, row by row, what has to be asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from data_prep.baseline.answers import BaselineAnswers, Filled, RecordedCalls, Row
from data_prep.baseline.asking import AskingBar, ask_each
from data_prep.rows.columns import COLUMNS
from data_prep.rows.remarks import PassedOver
from data_prep.text.cleaning import clean_hits
from reward.judge.judge import Judge
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import CallKind
from reward.records.files import writing_lines
from reward.services.tenant_services import TenantServices
from reward.settings.data import DeidentifySettings
from reward.settings.recipe import JudgeSettings, LedgerSettings, TenantSettings

_AT_A_TIME = 1000  # rows read from the spool


@dataclass(frozen=True)
class Spool:
    """Cleaned rows on disk."""

    path: Path
    tenant_id: str

    def usable(self) -> Iterator[Row]:
        return (row for row, reason in self._rows() if not reason)

    def quarantined(self) -> Iterator[Row]:
        """Yield file, sheet, row and reason of the rows that cannot be used."""
        for row, reason in self._rows():
            if reason:
                yield {name: row[name] for name in ("file", "sheet", "row")} | {"reason": reason}

    def passed_over(self) -> list[str]:
        """Say what of the usable rows was passed over, a line for each kind."""
        found = PassedOver()
        with pq.ParquetFile(self.path) as spool:
            for batch in spool.iter_batches(columns=["file", "row", "refused", "remarks"]):
                found.add(batch)
        return found.lines()

    def _rows(self) -> Iterator[tuple[Row, str]]:
        with pq.ParquetFile(self.path) as spool:
            for batch in spool.iter_batches(_AT_A_TIME):
                for row in batch.to_pylist():
                    yield row, self._reason(row)

    def _reason(self, row: Row) -> str:
        if row["refused"]:
            return str(row["refused"])
        if not row["original_query"]:
            return "original_query: empty"
        return "" if row["tenant_id"] in ("", self.tenant_id) else f"belongs to tenant {row['tenant_id']}"


@dataclass(frozen=True)
class Task:
    """Which services to ask, and how."""

    tenant: TenantSettings
    judge: JudgeSettings | None
    relevant: Mapping[str, Sequence[str]]
    top_k: int
    all_rows: bool
    ledger: LedgerSettings

    def answers(self, calls: Calls) -> BaselineAnswers:
        services = TenantServices(self.tenant, self.top_k, calls)
        judge = Judge(self.judge, self.tenant, self.ledger.cny_per_usd, calls) if self.judge else None
        return BaselineAnswers(self.tenant, services, judge, self.relevant, self.all_rows)

    @property
    def at_once(self) -> int:
        """Rows in hand at a time: enough to keep every service as busy as it may be."""
        services = (self.tenant.rag, self.tenant.baseline, self.judge)
        return sum(service.max_concurrency for service in services if service is not None)


@dataclass
class Tally:
    """What became of the rows and, by service, of what was asked for them. `requests`, `tokens` and `cny` are of the
    calls made, not of those that the ledger had."""

    rows: int = 0
    complete: int = 0  # nothing to ask
    incomplete: int = 0  # something failed
    filled: Counter[CallKind] = field(default_factory=Counter)
    failed: Counter[CallKind] = field(default_factory=Counter)
    requests: Counter[CallKind] = field(default_factory=Counter)
    tokens: float = 0.0
    cny: float = 0.0
    first_failure: str = ""

    def add(self, filled: Filled) -> None:
        self.rows += 1
        self.complete += not filled.asked
        self.incomplete += bool(filled.failure)
        self.first_failure = self.first_failure or filled.failure
        for kind, reason in filled.asked.items():
            (self.failed if reason else self.filled)[kind] += 1
        for answer in filled.answers:
            if answer.source == "made":
                trace = answer.trace
                self.requests[answer.kind] += trace.attempts
                self.tokens += trace.input_tokens + trace.output_tokens
                self.cny += answer.cost


@dataclass(frozen=True)
class Plan:
    """`known`: what the ledger knows. By service, `lacking` counts the rows that lack its answer and `to_ask` the calls
    to make at most. `rows_to_ask` counts the rows that lack any answer."""

    known: Tally
    lacking: Counter[CallKind]
    to_ask: dict[CallKind, int]

    @property
    def rows_to_ask(self) -> int:
        return self.known.rows - self.known.complete


async def look_up(task: Task, rows: Iterator[Row], ledger: Ledger) -> Plan:
    """Look up what there is to do for `rows`, without a call.

    Raises:
        BadInput: the ledger cannot be read, or a service's settings cannot be used.
    """
    calls, known, lacking = RecordedCalls(ledger), Tally(), Counter[CallKind]()
    answers = task.answers(calls)
    try:
        for row in rows:
            lacking.update(answers.lacks(row))
            known.add(await answers.fill(row))
    finally:
        await answers.aclose()
    # What is to be asked with a rewrite that is still to come cannot be looked up.
    rewrites = len(calls.missing[CallKind.BASELINE]) if task.tenant.baseline.url else 0
    to_ask = {
        CallKind.BASELINE: rewrites,
        CallKind.RAG: len(calls.missing[CallKind.RAG]) + rewrites,
        CallKind.JUDGE: len(calls.missing[CallKind.JUDGE])
        + rewrites * (task.judge.baseline_votes if task.judge else 0),
    }
    return Plan(known, lacking, to_ask)


async def fill_rows(task: Task, rows: Iterator[Row], total: int, ledger: Ledger, out: Path) -> Tally:
    """Write `rows`, filled, to `out`.

    Args:
        total: rows to ask about, for the bar.

    Raises:
        Stopped: a signal came; nothing is written then.
        BadInput: the ledger or `out` cannot be written.
    """
    answers, tally = task.answers(Calls(ledger)), Tally()
    try:
        with writing_lines(out) as write, AskingBar(total) as bar:

            def take(filled: Filled) -> None:
                write(_line(filled.row, task.tenant.deidentify))
                tally.add(filled)
                if filled.asked:
                    bar.advance(failed=bool(filled.failure))

            await ask_each(rows, answers.fill, take, at_once=task.at_once)
    finally:
        await answers.aclose()
    return tally


def _line(row: Row, settings: DeidentifySettings) -> str:
    values = {name: row[name] for name in ("source", *COLUMNS)}
    recorded = json.loads(row["recall_results"]) if row["recall_results"] else None
    if recorded is not None:
        recorded = [hit.model_dump(exclude_unset=True) for hit in clean_hits(recorded, settings)]
    values["recall_results"] = recorded
    return json.dumps(values, ensure_ascii=False)
