"""Split by query and by shared answer: what one side learns, no other side asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from reranker.data.records import Record, fold
from reward.records.files import BadInput


@dataclass(frozen=True)
class Split:
    """Each query in one of three parts. `components`: groups of queries that share a query's or an answer's text;
    `largest`: queries of the largest."""

    train: list[Record]
    validation: list[Record]
    heldout: list[Record]
    components: int
    largest: int


def components_of(records: Sequence[Record]) -> list[list[int]]:
    """Return the connected components of queries, by index. Two are connected when they share the text of the query or
    of an answer, or an answer's doc_id within one file."""
    nodes: dict[tuple[str, ...], int] = {}
    rows, columns = [], []
    for index, record in enumerate(records):
        for key in _keys(record):
            rows.append(index)
            columns.append(nodes.setdefault(key, len(records) + len(nodes)))
    size = len(records) + len(nodes)
    _, labels = connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), (size, size)), directed=False)
    found: dict[int, list[int]] = {}
    for index in range(len(records)):
        found.setdefault(int(labels[index]), []).append(index)
    return list(found.values())


def split_records(records: Sequence[Record], shares: tuple[float, float], seed: int) -> Split:
    """Give whole components to validation and to the held-out part until each has its share of the queries (a share of
    0: none), in an order drawn by the seed; the rest, the largest component among it, is for training.

    Raises:
        BadInput: there are too few components for the parts that are asked for.
    """
    components = components_of(records)
    parts = 1 + sum(share > 0 for share in shares)
    if len(components) < parts:
        raise BadInput(
            f"training data of {len(records)} {'query' if len(records) == 1 else 'queries'} in {len(components)} "
            f"independent {'group' if len(components) == 1 else 'groups'} (no shared query or answer): "
            f"{parts} are needed, to learn from one and measure on another"
        )
    components.sort(key=len)
    largest = components.pop()
    order = np.random.default_rng([seed, 1]).permutation(len(components))
    rest = [components[i] for i in order]
    chosen: list[list[int]] = []
    for place, share in enumerate(shares):
        part: list[int] = []
        needed = share * len(records)
        still = sum(later > 0 for later in shares[place + 1 :])  # each later part needs a component too
        for component in list(rest):
            if len(part) >= needed or len(rest) <= still:
                break
            # The first one is taken whatever its size: a part must not be empty.
            if not part or len(part) + len(component) <= needed + 1:
                part += component
                rest.remove(component)
        chosen.append(part)
    train = largest + [index for component in rest for index in component]
    of = [[records[i] for i in sorted(part)] for part in (train, *chosen)]
    return Split(of[0], of[1], of[2], len(components) + 1, len(largest))


def without_shared(records: Sequence[Record], others: Sequence[Record]) -> tuple[list[Record], int]:
    """Return the records whose component no record of `others` belongs to, and how many were taken out."""
    together = [*records, *others]
    kept = [
        together[index]
        for component in components_of(together)
        if all(index < len(records) for index in component)
        for index in component
    ]
    return kept, len(records) - len(kept)


def shared(a: Sequence[Record], b: Sequence[Record]) -> dict[str, int]:
    """Count what two parts share: the check that a split leaks nothing. `queries` and `answers` must be 0.
    `answers_as_negatives`: answers of `b` that are negatives in `a`; they cost, they do not flatter."""
    queries = [{fold(record.query) for record in part} for part in (a, b)]
    answers = [{fold(one.text) for record in part for one in record.positives} for part in (a, b)]
    negatives = {fold(one.text) for record in a for one in record.negatives}
    return {
        "queries": len(queries[0] & queries[1]),
        "answers": len(answers[0] & answers[1]),
        "answers_as_negatives": len(negatives & answers[1]),
    }


def _keys(record: Record) -> list[tuple[str, ...]]:
    file = record.source.rpartition(": ")[0]
    texts = [("query", fold(record.query)), *(("answer", fold(one.text)) for one in record.positives)]
    return [*texts, *(("doc_id", file, one.doc_id) for one in record.positives)]
