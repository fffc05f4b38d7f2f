"""What click logs say for sure: which passages answer a query, which do not, and where there is something to win.

A pair is a query (its words, normalised) and a passage. One showing is one row; rows that tell of the same passage in
the same list of results are one showing, clicked when one of them is. A list is known by its request_id, or else by
the query and a timestamp with a time of day.

A click rate seen in few showings says little, hence one-sided 95 % bounds (Wilson 1927) of it instead:

    positive   lower bound of clicked / shown  ≥ positive_rate
    negative   upper bound of clicked / seen   ≤ negative_rate
    each of at least min_shown; everything else is ambiguous and used for nothing

`seen` leaves out what the user may never have looked at: where positions are recorded, a showing counts when it was
clicked or stood above a click of the same list ("skipped above a click", Joachims 2002). Without positions, or with
nothing that tells lists apart, every showing counts. The two rules never both hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from data_prep.dataset.selection import Step, failures
from data_prep.rows.sql import literal
from reward.records.files import BadInput

_MEMORY = "400MB"
_BATCH = 10_000
_Z = 1.6449  # of a one-sided 95 % bound
_TIME_OF_DAY = "regexp_matches(timestamp, '[T ]\\d\\d:\\d\\d') AND NOT regexp_matches(timestamp, '[T ]00:00(:00)?')"

# What the deployed system makes of a query, in the order of `query_counts`. The first two are worth a prompt.
BELOW_FIRST, NOTHING_CLICKED = "clicked_below_first", "nothing_clicked"
KINDS = {
    BELOW_FIRST: "users click a passage that is not ranked first",
    NOTHING_CLICKED: "users click nothing",
    "clicked_first": "users click the passage ranked first",
    "rank_unknown": "users click a passage, its rank is not recorded",
    "undecided": "too little is known",
}


@dataclass(frozen=True)
class Confidence:
    """How much a pair must show before it counts. Rates are in [0, 1].

    Raises:
        BadInput: a value is out of range, or a pair could be both positive and negative.
    """

    min_shown: int = 3
    positive_rate: float = 0.3
    negative_rate: float = 0.2

    def __post_init__(self) -> None:
        if self.min_shown < 1:
            raise BadInput(f"--min-shown {self.min_shown}: below 1")
        if not 0 <= self.negative_rate < self.positive_rate <= 1:
            raise BadInput(
                f"--negative-rate {self.negative_rate:g} --positive-rate {self.positive_rate:g}: "
                "expected 0 ≤ negative < positive ≤ 1"
            )


def wilson(clicked: str, shown: str, sign: str) -> str:
    """Write the SQL of the lower ("-") or upper ("+") bound of a rate; NULL where nothing was shown."""
    rate, z2 = f"({clicked} / {shown}::DOUBLE)", _Z**2
    spread = f"{_Z} * sqrt({rate} * (1 - {rate}) / {shown} + {z2} / (4 * {shown} * {shown}::DOUBLE))"
    return (
        f"CASE WHEN {shown} > 0 THEN ({rate} + {z2} / (2 * {shown}) {sign} {spread}) / (1 + {z2} / {shown}::DOUBLE) END"
    )


class ClickEvidence:
    """Verdicts over a spool of click rows (Parquet of `clicks.intake.SPOOL`).

    Args:
        steps: what a row must pass; the first that it fails is why it is quarantined.
        corpus: doc_id → passage, where the knowledge base is at hand: its text counts, and a passage that was logged
            without a doc_id gets it from there. Else the newest text logged for a doc_id counts.
        scratch: folder for what does not fit into memory.
    """

    def __init__(
        self, spool: Path, steps: Sequence[Step], corpus: Mapping[str, str], confidence: Confidence, scratch: Path
    ):
        self._db = duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(scratch)})
        self._confidence = confidence
        self._db.execute(f"CREATE VIEW rows AS FROM read_parquet({literal(str(spool))})")
        self._drop(steps)
        self._name_passages(corpus)
        self._count_pairs()
        self._sort_queries()

    def close(self) -> None:
        self._db.close()

    def rows(self) -> dict[str, int]:
        """Count rows: in = positive + negative + ambiguous + quarantined."""
        verdicts = self._counts("SELECT verdict, count(*) FROM clicks JOIN pairs USING (query, doc) GROUP BY verdict")
        (quarantined,) = self._db.execute("SELECT count(*) FROM dropped").fetchall()[0]
        (rows_in,) = self._db.execute("SELECT count(*) FROM rows").fetchall()[0]
        found = {verdict: verdicts.get(verdict, 0) for verdict in ("positive", "negative", "ambiguous")}
        return {"in": rows_in, **found, "quarantined": quarantined}

    def pair_counts(self) -> dict[str, int]:
        """Count pairs by verdict."""
        found = self._counts("SELECT verdict, count(*) FROM pairs GROUP BY verdict")
        return {verdict: found.get(verdict, 0) for verdict in ("positive", "negative", "ambiguous")}

    def query_counts(self) -> dict[str, int]:
        """Count queries by kind (`KINDS`)."""
        found = self._counts("SELECT kind, count(*) FROM queries GROUP BY kind")
        return {kind: found.get(kind, 0) for kind in KINDS}

    def pairs(self) -> Iterator[dict[str, Any]]:
        """Return the confident pairs by query: query, doc_id, text ("" where nobody logged it), verdict, shown, seen,
        clicked, lower and upper bound of the click rate, median position (None = not recorded)."""
        return self._read(
            """SELECT query, doc AS doc_id, coalesce(text, '') AS text, verdict, shown, seen, clicked,
            round(lower, 4) AS lower, round(upper, 4) AS upper, position
            FROM pairs JOIN passages USING (doc) WHERE verdict <> 'ambiguous' ORDER BY query, lower DESC, doc"""
        )

    def prompts(self) -> Iterator[dict[str, Any]]:
        """Return the queries worth a prompt, by query: one row for each (all columns), `kind`, and `relevant`, the
        ids of the passages that users confidently click.

        The row is one of the most frequent dialogue (history), of those under which the relevant passages were clicked:
        the same words within another dialogue may mean something else. Relevant is what was clicked within it.
        """
        return self._read(
            f"""WITH told AS (
                SELECT id, query, doc, lower, named, kind, concat_ws(chr(31), history_summary, history_context) AS talk,
                concat_ws(chr(31), user_profile, rewritten_query) AS rest, rewritten_query <> '' AS rewritten
                FROM clicks JOIN queries USING (query) JOIN pairs USING (query, doc) JOIN passages USING (doc)
                JOIN rows USING (id)
                WHERE kind = '{NOTHING_CLICKED}' OR (kind = '{BELOW_FIRST}' AND clicks.clicked AND verdict = 'positive')
            ), talks AS (
                SELECT query, talk FROM told GROUP BY query, talk
                QUALIFY row_number() OVER (PARTITION BY query ORDER BY count(*) DESC, max(id) DESC) = 1
            ), standing AS (
                SELECT query, max(id) AS id FROM told JOIN talks USING (query, talk) GROUP BY query, rest, rewritten
                QUALIFY row_number() OVER (PARTITION BY query ORDER BY rewritten DESC, count(*) DESC, max(id) DESC) = 1
            ), relevant AS (
                SELECT query, list(doc ORDER BY lower DESC, doc) AS relevant FROM (
                    SELECT DISTINCT query, doc, lower FROM told JOIN talks USING (query, talk)
                    WHERE named AND kind = '{BELOW_FIRST}'
                ) GROUP BY query
            )
            SELECT rows.*, kind, coalesce(relevant, []) AS relevant
            FROM standing JOIN queries USING (query) LEFT JOIN relevant USING (query) JOIN rows USING (id)
            ORDER BY query"""
        )

    def left_out(self) -> Iterator[dict[str, Any]]:
        """Return file, sheet, row, step, reason of every quarantined row, in order."""
        return self._read("SELECT file, sheet, row, step, reason FROM dropped JOIN rows USING (id) ORDER BY id")

    def _drop(self, steps: Sequence[Step]) -> None:
        self._db.execute(f"CREATE TABLE dropped AS {failures(steps)}")

    def _name_passages(self, corpus: Mapping[str, str]) -> None:
        """Create `clicks`, the usable rows with their passage's id (`doc`), and `passages`, the text of each id and
        whether the log or the corpus gave the id (`named`); a passage without one gets a hash of its text."""
        known = pa.table({"doc": pa.array(corpus.keys(), pa.string()), "text": pa.array(corpus.values(), pa.string())})
        self._db.register("known", known)
        self._db.execute("CREATE TABLE corpus AS FROM known")
        self._db.unregister("known")
        self._db.execute(
            f"""CREATE TABLE named AS SELECT text, min(doc) AS doc FROM (
                SELECT text, doc FROM corpus UNION SELECT passage, doc_id FROM rows ANTI JOIN dropped USING (id)
                WHERE passage <> '' AND doc_id <> ''
            ) GROUP BY text HAVING count(*) = 1;
            CREATE TABLE clicks AS SELECT id, original_query AS query, clicked, position,
                CASE WHEN doc_id <> '' THEN doc_id ELSE coalesce(named.doc, 'text-' || left(sha256(passage), 16)) END
                    AS doc,
                CASE WHEN request_id <> '' THEN 'request ' || request_id WHEN {_TIME_OF_DAY} THEN timestamp END AS list
            FROM rows ANTI JOIN dropped USING (id) LEFT JOIN named ON named.text = passage;
            CREATE TABLE passages AS SELECT doc, coalesce(any_value(corpus.text), arg_max(passage, id)
                FILTER (passage <> '')) AS text, bool_or(doc_id <> '' OR named.doc IS NOT NULL) AS named
            FROM clicks JOIN rows USING (id) LEFT JOIN corpus USING (doc) LEFT JOIN named ON named.text = passage
            GROUP BY doc"""
        )

    def _count_pairs(self) -> None:
        rule = self._confidence
        self._db.execute(
            f"""CREATE TABLE shows AS SELECT query, doc, list, bool_or(clicked) AS clicked, min(position) AS position
            FROM clicks GROUP BY query, doc, list, CASE WHEN list IS NULL THEN id END;
            CREATE TABLE pairs AS SELECT *, {wilson("clicked", "shown", "-")} AS lower,
                {wilson("clicked", "seen", "+")} AS upper,
                CASE WHEN shown >= {rule.min_shown} AND lower >= {rule.positive_rate} THEN 'positive'
                WHEN seen >= {rule.min_shown} AND upper <= {rule.negative_rate} THEN 'negative'
                ELSE 'ambiguous' END AS verdict
            FROM (
                SELECT query, doc, count(*) AS shown, count_if(clicked)::BIGINT AS clicked,
                    count_if(seen)::BIGINT AS seen, median(position) AS position
                FROM (
                    SELECT *, CASE WHEN list IS NULL OR position IS NULL THEN true ELSE clicked OR coalesce(position <
                        max(position) FILTER (clicked) OVER (PARTITION BY query, list), false) END AS seen FROM shows
                ) GROUP BY query, doc
            )"""
        )

    def _sort_queries(self) -> None:
        """Create `queries`, the kind of each. A position of 0 anywhere means that positions count from 0."""
        rule = self._confidence
        self._db.execute(
            f"""CREATE TABLE queries AS
            WITH asked AS (
                SELECT query, sum(lists) AS asked FROM (
                    SELECT query, count(DISTINCT list) AS lists FROM shows GROUP BY query UNION ALL
                    SELECT query, max(n) FROM (
                        SELECT query, doc, count(*) AS n FROM shows WHERE list IS NULL GROUP BY query, doc
                    ) GROUP BY query
                ) GROUP BY query
            ), judged AS (
                SELECT query, sum(clicked) AS clicked, min(position) FILTER (verdict = 'positive') AS best,
                    count_if(verdict = 'positive') AS positives,
                    count_if(verdict = 'positive' AND position IS NULL) AS unplaced
                FROM pairs GROUP BY query
            )
            SELECT query, CASE
                WHEN positives > 0 AND best <= (SELECT least(min(position), 1) FROM clicks) THEN 'clicked_first'
                WHEN positives > 0 AND unplaced > 0 THEN 'rank_unknown'
                WHEN positives > 0 THEN '{BELOW_FIRST}'
                WHEN clicked = 0 AND asked >= {rule.min_shown}
                    AND {wilson("0", "asked", "+")} <= {rule.negative_rate} THEN '{NOTHING_CLICKED}'
                ELSE 'undecided' END AS kind
            FROM judged JOIN asked USING (query)"""
        )

    def _counts(self, sql: str) -> dict[str, int]:
        return dict(self._db.execute(sql).fetchall())

    def _read(self, sql: str) -> Iterator[dict[str, Any]]:
        for batch in self._db.cursor().sql(sql).to_arrow_reader(_BATCH):
            yield from batch.to_pylist()
