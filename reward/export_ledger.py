"""Write what a ledger holds for people and spreadsheets.

    python -m reward.export_ledger --ledger outputs/rl/fivedoctors/ledger.sqlite --out outputs/rl/fivedoctors

`judgements.jsonl` holds one answered judge call a line, `usage.csv` one line per day (UTC), run, tenant, kind, service
and status. A batched call counts as one call however many answers it gave; `answers` counts those. `estimated` counts
the calls whose cost is the bound that was set aside, because the service reported none. The ledger may be in use.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from reward.ledger.ledger import OK
from reward.ledger.ledger_file import open_to_read
from reward.records.call import CallKind
from reward.records.commands import command
from reward.records.files import BadInput, replacing, write_atomically
from reward.records.spreadsheet import ENCODING, CsvTable

DESCRIPTION = "Write what a ledger holds for people and spreadsheets: judgements.jsonl and usage.csv."
JUDGEMENTS_FILE, USAGE_FILE = "judgements.jsonl", "usage.csv"
GROUPS = ["day", "run", "tenant", "kind", "service", "status"]
SUMS = ["answers", "calls", "attempts", "estimated", "input_tokens", "cached_tokens", "output_tokens", "cny", "usd"]
_CHOSEN = "(:run IS NULL OR run_id = :run) AND (:tenant IS NULL OR tenant = :tenant)"

console = Console()


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reward.export_ledger", description=DESCRIPTION)
    parser.add_argument("--ledger", type=Path, required=True, metavar="FILE", help="the ledger.sqlite of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the two files are written")
    parser.add_argument("--run", metavar="RUN_ID", help="only this run's calls")
    parser.add_argument("--tenant", metavar="T", help="only this tenant's calls")
    args = parser.parse_args(argv)
    try:
        export_ledger(args.ledger, args.out, args.run, args.tenant)
    except sqlite3.Error as error:
        raise BadInput(f"{args.ledger}: cannot be read: {error}") from None
    return 0


def export_ledger(ledger: Path, out: Path, run: str | None = None, tenant: str | None = None) -> pd.DataFrame:
    """Write `judgements.jsonl` and `usage.csv` to `out` and print the totals. Returns what `usage.csv` holds.

    Raises:
        BadInput: the ledger cannot be used or holds no such call, or `out` cannot be written.
        sqlite3.Error: the ledger cannot be read further.
    """
    with closing(open_to_read(ledger)) as db:
        db.execute("BEGIN")  # both files show the same moment
        usage = _usage(db, {"run": run, "tenant": tenant})
        if usage.empty:
            raise BadInput(f"{ledger}: holds no call{_what_is_missing(db, run, tenant)}")
        write_atomically(out / JUDGEMENTS_FILE, _judgements(db, {"run": run, "tenant": tenant}))
    _write_usage(out / USAGE_FILE, usage)
    _print_totals(usage)
    console.print(f"{out / JUDGEMENTS_FILE}\n{out / USAGE_FILE}", soft_wrap=True, highlight=False)
    return usage


def export_teacher(ledger: Path, judgements: Path, usage: Path, run: str | None = None) -> tuple[int, pd.DataFrame]:
    """Write what the ledger holds of the teacher: an opinion a line to `judgements`, the calls of a run to `usage`.

    The opinions are those of all runs that share the ledger: it answers them again at no cost.

    Returns:
        The number of opinions, and what `usage` holds.

    Raises:
        BadInput: the ledger cannot be used, or a file cannot be written.
    """
    count = 0

    def counted(lines: Iterator[str]) -> Iterator[str]:
        nonlocal count
        for line in lines:
            count += 1
            yield line

    everything: dict[str, str | None] = {"run": None, "tenant": None}
    try:
        with closing(open_to_read(ledger)) as db:
            db.execute("BEGIN")  # both files show the same moment
            calls = _usage(db, {**everything, "run": run})
            calls = calls[calls["kind"] == CallKind.TEACHER.value]
            write_atomically(judgements, counted(_judgements(db, everything, CallKind.TEACHER)))
    except sqlite3.Error as error:
        raise BadInput(f"{ledger}: cannot be read: {error}") from None
    _write_usage(usage, calls)
    return count, calls


def _write_usage(path: Path, usage: pd.DataFrame) -> None:
    with replacing(path) as partial, partial.open("w", encoding=ENCODING, newline="") as file:
        table = CsvTable(file, list(usage.columns))
        for row in usage.astype(object).itertuples(index=False):
            table.write(row)


def _what_is_missing(db: sqlite3.Connection, run: str | None, tenant: str | None) -> str:
    there = db.execute("SELECT DISTINCT run_id || ' (' || tenant || ')' FROM calls LIMIT 20").fetchall()
    if not there:
        return ""
    chosen = [f"{name} {value!r}" for name, value in (("run", run), ("tenant", tenant)) if value]
    return f" of {' and '.join(chosen)}; it holds {', '.join(row[0] for row in there)}"


def _usage(db: sqlite3.Connection, chosen: dict[str, str | None]) -> pd.DataFrame:
    calls = pd.read_sql_query(
        f"""SELECT substr(time, 1, 10) AS day, run_id AS run, tenant, kind, service, status, 1 AS answers,
            1.0 / shared_by AS calls, 1.0 * attempts / shared_by AS attempts, 1.0 * estimated / shared_by AS estimated,
            input_tokens, cached_tokens, output_tokens, cny, usd, latency FROM calls WHERE {_CHOSEN}""",
        db,
        params=chosen,
    )
    grouped = calls.groupby(GROUPS)
    latency = grouped["latency"].agg(
        latency_p50=lambda seconds: seconds.quantile(0.5), latency_p95=lambda seconds: seconds.quantile(0.95)
    )
    # Shares of a batched call are fractions: without rounding their sums would show it.
    return grouped[SUMS].sum().join(latency).round(6).reset_index()


def _judgements(db: sqlite3.Connection, chosen: dict[str, str | None], of: CallKind = CallKind.JUDGE) -> Iterator[str]:
    rows = db.execute(
        f"""SELECT time, run_id, tenant, service, key, value, input_tokens, cached_tokens, output_tokens, cny, usd,
            estimated FROM calls WHERE kind = '{of}' AND status = '{OK}' AND {_CHOSEN} ORDER BY id""",
        chosen,
    )
    for time, run, tenant, service, key, value, input_tokens, cached_tokens, output_tokens, cny, usd, estimated in rows:
        identity = {"time": time, "run": run, "tenant": tenant, "service": service, "key": key}
        costs: dict[str, object] = {
            "tokens": {"input": input_tokens, "cached": cached_tokens, "output": output_tokens},
            "cost": {"cny": cny, "usd": usd},
        }
        if estimated:
            costs["estimated"] = True
        # The answer's JSON goes out as it was recorded: lone surrogates are still escaped in it.
        yield f'{{{_inside(identity)}, "value": {value}, {_inside(costs)}}}'


def _inside(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, ensure_ascii=False)[1:-1]


def _print_totals(usage: pd.DataFrame) -> None:
    table = Table("kind", "status", title="Calls to services")
    for column in ("calls", "answers", "tokens", "¥", "$"):
        table.add_column(column, justify="right")
    for names, rows in usage.groupby(["kind", "status"]):
        table.add_row(*map(str, names), *_totals(rows))
    table.add_section()
    table.add_row("all", "", *_totals(usage))
    console.print(table)


def _totals(rows: pd.DataFrame) -> list[str]:
    sums = rows[SUMS].sum()
    tokens = sums["input_tokens"] + sums["output_tokens"]
    counts = [f"{number:,.0f}" for number in (sums["calls"], sums["answers"], tokens)]
    return [*counts, f"{sums['cny']:,.2f}", f"{sums['usd']:,.2f}"]


if __name__ == "__main__":
    raise SystemExit(main())
