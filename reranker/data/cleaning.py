"""Make one record of each query, without repeats and without texts that are both an answer and none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reranker.data.records import LeftOut, Passage, Record, fold


def clean(records: Sequence[Record]) -> tuple[list[Record], list[LeftOut]]:
    """Merge rows of one query (alike but for case and spaces), then remove contradictions.

    A text that is positive in one place and negative in another is taken from both sides, since nothing says which is
    right; a query that has no answer left is left out. A doubled text counts once.
    """
    merged: dict[str, list[Record]] = {}
    for record in records:
        merged.setdefault(fold(record.query), []).append(record)
    kept: list[Record] = []
    left_out: list[LeftOut] = []
    for rows in merged.values():
        positives = _by_text(passage for row in rows for passage in row.positives)
        negatives = _by_text(passage for row in rows for passage in row.negatives)
        where = rows[0].source if len(rows) == 1 else f"{rows[0].source} and {_row(rows[1])}"
        for text in positives.keys() & negatives.keys():
            name = f"{positives[text].doc_id!r} and {negatives[text].doc_id!r}"
            left_out.append(LeftOut(where, "positives and negatives", f"the same text on both sides ({name}): removed"))
            del positives[text], negatives[text]
        if positives:
            kept.append(Record(rows[0].query, tuple(positives.values()), tuple(negatives.values()), rows[0].source))
        else:
            left_out.append(LeftOut(where, "positives", "no answer is left"))
    return kept, left_out


def _row(record: Record) -> str:
    """Return `row N` of a source in the form `file: row N`."""
    return record.source.rpartition(": ")[2]


def _by_text(passages: Iterable[Passage]) -> dict[str, Passage]:
    found: dict[str, Passage] = {}
    for passage in passages:
        found.setdefault(fold(passage.text), passage)
    return found
