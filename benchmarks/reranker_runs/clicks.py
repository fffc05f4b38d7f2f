"""A month of clicks, simulated: what people look at depends on the place, what they click on what they look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from rag.catalogue.clicks import Click
from rag.learning.click_evidence import normalize_query, weigh_clicks
from reranker.data.records import Passage, Record

SHOWN = 10
CLICKS_ANSWER, CLICKS_OTHER = 0.8, 0.1  # of a passage that is looked at
BUSIEST, FEWEST = 300, 3  # showings of the most frequent query's list; the others' fall as 1 / rank


@dataclass(frozen=True)
class Month:
    """`records`: what the service's rule makes of the clicks; `rows`: of the log; `right`, `wrong`: positives that the
    qrels confirm, and others."""

    records: list[Record]
    rows: int
    clicks: int
    right: int
    wrong: int


def click_log(
    records: Sequence[Record], candidates: Sequence[Iterable[str]], seed: int, fewest: int = FEWEST
) -> list[Click]:
    """Show each query's candidates in their order, the first query's `BUSIEST` times and none's fewer than `fewest`
    times. A place is looked at with probability 1/place (Joachims et al. 2017, eta 1); an answer that is looked at is
    clicked in 80 %, another passage in 10 %."""
    rng = np.random.default_rng(seed)
    log: list[Click] = []
    for rank, (record, names) in enumerate(zip(records, candidates, strict=True), start=1):
        answers = {one.doc_id for one in record.positives}
        for session in range(max(fewest, BUSIEST // rank)):
            for place, name in enumerate(islice(names, SHOWN), start=1):
                looked = rng.random() < 1 / place
                clicked = looked and rng.random() < (CLICKS_ANSWER if name in answers else CLICKS_OTHER)
                log.append(Click(1, record.query, "", name, bool(clicked), place, f"{rank}-{session}", ""))
    return log


def simulate_month(
    records: Sequence[Record],
    candidates: Sequence[Iterable[str]],
    passages: dict[str, str],
    seed: int,
    fewest: int = FEWEST,
) -> Month:
    """Weigh the log by the rule of `rag.learn_from_clicks`: sure answers are positive; what was seen and never clicked
    is negative."""
    log = click_log(records, candidates, seed, fewest)
    asked = {normalize_query(record.query): record for record in records}
    answers_of = {query: {one.doc_id for one in record.positives} for query, record in asked.items()}
    positives: dict[str, list[Passage]] = {}
    negatives: dict[str, list[Passage]] = {}
    right = wrong = 0
    for pair in weigh_clicks(log):
        passage = Passage(pair.passage_key, passages[pair.passage_key])
        if pair.label == "positive":
            positives.setdefault(pair.query, []).append(passage)
            sure = pair.passage_key in answers_of[pair.query]
            right, wrong = right + sure, wrong + (not sure)
        elif pair.seen and not pair.clicked:
            negatives.setdefault(pair.query, []).append(passage)
    found = [
        Record(asked[query].query, tuple(of), tuple(negatives.get(query, ())), f"clicks: row {row}")
        for row, (query, of) in enumerate(positives.items(), start=1)
    ]
    return Month(found, len(log), sum(click.clicked for click in log), right, wrong)
