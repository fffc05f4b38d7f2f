"""Which rows of a spool are kept, and why each of the others is not: every row in ends in exactly one of the two.

The rows are in a Parquet file that DuckDB reads column by column, so that a million of them need no million objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.questions.near_duplicates import groups_of_keys
from data_prep.questions.question_sets import bare_texts, encoded, question_keys
from data_prep.questions.split import Split, leaks, splits_of_bare
from data_prep.rows.sql import literal

_MEMORY = "160MB"
_BATCH = 10_000

# What tells two questions of the same words apart.
_CONTEXT = "md5(concat_ws(chr(31), user_profile, history_summary, history_context, thought_unit))"


@dataclass(frozen=True)
class Step:
    """One step of the retention funnel.

    Args:
        name: as the funnel shows it.
        keeps: SQL condition on a row; unknown counts as no.
        reason: SQL text that says of a row which does not pass why it is left out.
    """

    name: str
    keeps: str
    reason: str


@dataclass(frozen=True)
class Stage:
    """What one step let through."""

    name: str
    rows_in: int
    rows_out: int


def failures(steps: Sequence[Step]) -> str:
    """Write SQL for id, step and reason of each of `rows` that fails a step; the first step that a row fails counts."""
    first = " ".join(f"WHEN NOT coalesce({step.keeps}, false) THEN {n}" for n, step in enumerate(steps))
    names = " ".join(f"WHEN {n} THEN {literal(step.name)}" for n, step in enumerate(steps))
    reasons = " ".join(f"WHEN {n} THEN {step.reason}" for n, step in enumerate(steps))
    return f"""SELECT id, CASE failed {names} END AS step, CASE failed {reasons} END AS reason
        FROM (SELECT *, CASE {first} END AS failed FROM rows) WHERE failed IS NOT NULL"""


class Selection:
    """Rows are named by `id`, their place in the spool.

    Args:
        spool: Parquet file of `columns.ROWS` and `id`.
        scratch: folder for what does not fit into memory.
    """

    def __init__(self, spool: Path, scratch: Path):
        self._db = duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(scratch)})
        self._db.execute("CREATE TABLE dropped (id BIGINT, step VARCHAR, reason VARCHAR)")
        self._db.execute(f"CREATE VIEW rows AS FROM read_parquet({literal(str(spool))})")
        self._spool = spool
        self.rows_in: int = self._count("rows")
        self.funnel: list[Stage] = []
        self._has_keys = False

    def close(self) -> None:
        self._db.close()

    @property
    def kept(self) -> int:
        return self.funnel[-1].rows_out if self.funnel else self.rows_in

    def apply(self, steps: Sequence[Step], worth: str) -> None:
        """Drop what does not pass every step.

        Args:
            worth: SQL number, by which `drop_duplicates` and `drop_near_duplicates` choose which row to keep.
        """
        self._db.execute(f"INSERT INTO dropped {failures(steps)}")
        self._db.execute(
            f"""CREATE TABLE kept AS SELECT id, original_query AS query, {_CONTEXT} AS context,
            coalesce({worth}, 0)::DOUBLE AS worth FROM rows ANTI JOIN dropped USING (id) ORDER BY id"""
        )
        counts = dict(self._db.execute("SELECT step, count(*) FROM dropped GROUP BY step").fetchall())
        rows = self.rows_in
        for step in steps:
            self.funnel.append(Stage(step.name, rows, rows - counts.get(step.name, 0)))
            rows = self.funnel[-1].rows_out

    def drop_duplicates(self) -> None:
        """Keep one row for each (query, context), letter case aside: the worthiest, the earliest among equals. The same
        words in another context are another question, so they stay."""
        self._db.execute(
            """CREATE TEMP TABLE same AS SELECT id, first_value(id) OVER
            (PARTITION BY lower(query), context ORDER BY worth DESC, id) AS better FROM kept"""
        )
        self._drop("duplicates", "duplicate of")

    def drop_near_duplicates(self, threshold: float) -> np.ndarray:
        """Keep one row as `drop_duplicates` does, for queries alike (`data_prep.questions.near_duplicates`) in the same
        context.

        Returns:
            The near-duplicate group of each row that is kept, in order.
        """
        ids = self._ids()
        groups = groups_of_keys(encoded(self.keys()), threshold)
        self._db.register("grouped", pa.table({"id": ids, "cluster": groups}))
        self._db.execute(
            """CREATE TEMP TABLE same AS SELECT id, first_value(id) OVER
            (PARTITION BY cluster, context ORDER BY worth DESC, id) AS better FROM kept JOIN grouped USING (id)"""
        )
        self._db.unregister("grouped")
        self._drop("near-duplicates", "near-duplicate of")
        stay = np.isin(ids, self._ids(), assume_unique=True)
        return groups[stay]

    def split(self, shares: tuple[tuple[Split, float], ...], seed: int, groups: np.ndarray | None) -> None:
        """Give every kept row its split, then drop those that are like a row further held out.

        Args:
            groups: of `drop_near_duplicates`; without it only equal queries are alike, and those share a split.
        """
        ids = self._ids()
        splits = splits_of_bare(bare_texts(self.keys()), shares, seed)
        if groups is None:
            leaking, better = np.zeros(len(ids), dtype=bool), ids
        else:
            leaking = leaks(_names(splits), groups)
            better = _held_out_of_group(ids, groups, leaking)
        self._set_splits(ids, splits)
        self._db.register("leaking", pa.table({"id": ids, "better": better}))
        self._db.execute("CREATE TEMP TABLE same AS FROM leaking")
        self._db.unregister("leaking")
        self._drop("leaks", "like the held-out query of")

    def fix_split(self, split: Split) -> None:
        """Put every kept row into `split`."""
        ids = self._ids()
        self._set_splits(ids, pa.repeat(split, len(ids)))

    def _set_splits(self, ids: np.ndarray, splits: pa.Array) -> None:
        self._db.register("assigned", pa.table({"id": ids, "split": splits}))
        self._db.execute("CREATE TABLE splits AS FROM assigned")
        self._db.unregister("assigned")

    def _drop(self, name: str, words: str) -> None:
        """Drop what the table `same` names a better row for, and the table with it."""
        rows = self.kept
        self._db.execute(
            f"""INSERT INTO dropped
            SELECT t.id, {literal(name)}, {literal(words)} || ' row ' || r.row || ' of ' || r.file
            FROM same t JOIN rows r ON r.id = t.better WHERE t.id <> t.better"""
        )
        self._db.execute("DELETE FROM kept USING same t WHERE kept.id = t.id AND t.id <> t.better")
        self._db.execute("DROP TABLE same")
        self.funnel.append(Stage(name, rows, self._count("kept")))

    def newest_log_day(self) -> date | None:
        """Return the newest day of the readable production logs; None without one."""
        logged = "source = 'production_log' AND refused = ''"
        [(day,)] = self.ask(f"SELECT max(left(timestamp, 10)) FROM rows WHERE {logged}")
        return date.fromisoformat(str(day)) if day else None

    def undated(self) -> int:
        """Count the readable rows of production logs that no window can leave out: no time is known of them."""
        logged = "source = 'production_log' AND refused = ''"
        [(count,)] = self.ask(f"SELECT count(*) FROM rows WHERE {logged} AND timestamp = ''")
        return int(str(count))

    def queries(self, split: Split | None = None) -> pa.Array:
        """Return the queries of the kept rows (of one split), in order."""
        where = "" if split is None else f"JOIN splits USING (id) WHERE split = {literal(split)}"
        return _column(self._db, f"SELECT query FROM kept {where} ORDER BY kept.id", pa.string())

    def keys(self, split: Split | None = None) -> pa.Array:
        """Return the `question_sets.question_keys` of `queries`, worked out once."""
        if not self._has_keys:
            keyed = pa.table({"id": self._ids(), "key": question_keys(self.queries())})
            self._db.register("keyed", keyed)
            self._db.execute("CREATE TABLE keys AS FROM keyed")
            self._db.unregister("keyed")
            self._has_keys = True
        where = "" if split is None else f"JOIN splits USING (id) WHERE split = {literal(split)}"
        return _column(self._db, f"SELECT key FROM kept JOIN keys USING (id) {where} ORDER BY kept.id", pa.string())

    def batches(self, split: Split, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield `columns` of the kept rows of `split` in order, each with `n`, its number among all that are kept, from
        1."""
        number = np.zeros(self.rows_in, dtype=np.int64)
        ids = self._ids()
        number[ids] = np.arange(1, len(ids) + 1)
        chosen = np.zeros(self.rows_in, dtype=bool)
        chosen[self._ids(split)] = True
        for batch in self._spooled([*columns, "id"]):
            here = batch.column("id").to_numpy()
            numbered = batch.append_column("n", pa.array(number[here]))
            yield numbered.drop_columns(["id"]).filter(pa.array(chosen[here]))

    def left_out(self) -> Iterator[pa.RecordBatch]:
        """Yield file, sheet, row, step and reason of every row that is not kept, in order."""
        table: pa.Table = self._db.cursor().sql("SELECT id, step, reason FROM dropped ORDER BY id").to_arrow_table()
        dropped = np.zeros(self.rows_in, dtype=bool)
        dropped[table["id"].to_numpy()] = True
        done = 0
        for batch in self._spooled(["file", "sheet", "row", "id"]):
            places = batch.filter(pa.array(dropped[batch.column("id").to_numpy()]))
            why = table.slice(done, places.num_rows).select(["step", "reason"]).combine_chunks()
            done += places.num_rows
            for name in why.column_names if places.num_rows else ():
                places = places.append_column(name, why[name].chunk(0))
            yield places.drop_columns(["id"])

    def _spooled(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        # Not by SQL: to put whole rows in order it would first have to hold them.
        with pq.ParquetFile(self._spool) as spool:
            yield from spool.iter_batches(_BATCH, columns=columns)

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """Return the rows of a query over `rows`, `kept` (id, query, context, worth), `splits` and `dropped`: for
        reports."""
        return self._db.execute(sql).fetchall()

    def _count(self, table: str) -> int:
        found = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert found is not None
        return int(found[0])

    def _ids(self, split: Split | None = None) -> np.ndarray:
        where = "" if split is None else f"JOIN splits USING (id) WHERE split = {literal(split)}"
        return np.asarray(self._db.execute(f"SELECT kept.id FROM kept {where} ORDER BY kept.id").fetchnumpy()["id"])


def _names(splits: pa.Array) -> np.ndarray:
    coded = splits.dictionary_encode()
    return np.array(coded.dictionary.to_pylist(), dtype=str)[coded.indices.to_numpy()]


def _held_out_of_group(ids: np.ndarray, groups: np.ndarray, leaking: np.ndarray) -> np.ndarray:
    """Return for a leaking row a row of its group that stays; for others their own id."""
    staying, first = np.unique(groups[~leaking], return_index=True)
    better = ids.copy()
    better[leaking] = ids[~leaking][first[np.searchsorted(staying, groups[leaking])]]
    return better


def _column(db: duckdb.DuckDBPyConnection, sql: str, kind: pa.DataType) -> pa.Array:
    table: pa.Table = db.cursor().sql(sql).to_arrow_table()
    return pa.concat_arrays([chunk.cast(kind) for chunk in table.column(0).chunks] or [pa.array([], kind)])
