"""All the data of a run: read, cleaned, split, mined; counted at every step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reranker.data.cleaning import clean
from reranker.data.mining import Mined, mine, passages_of
from reranker.data.reading import Reading, read_data
from reranker.data.records import LeftOut, Passage, Record, fold
from reranker.data.sampling import Group, Sampler, candidate_lists
from reranker.data.split import Split, shared, split_records, without_shared
from reranker.settings.run import DataSettings, RunSettings
from reward.records.files import BadInput


@dataclass(frozen=True)
class RunData:
    """`counts`: what was read, kept, left out and split, for `counts.json`."""

    train: list[Record]
    mined: Mined
    pool: list[Passage]
    validation: list[Group]
    forgetting: list[Group]
    left_out: list[LeftOut]
    counts: dict[str, Any]
    sha256: str

    def sampler(self, settings: RunSettings) -> Sampler:
        return Sampler(self.train, self.mined.negatives, self.pool, settings.groups, settings.seed)


def prepare(settings: RunSettings) -> RunData:
    """
    Raises:
        BadInput: a file cannot be used, or too little is left to learn from and to measure on.
    """
    of = settings.data
    reading = read_data(of.train, of.qrels, of.corpus)
    cleaned, conflicts = clean(reading.records)
    if not cleaned:
        raise BadInput(f"{', '.join(map(str, of.train))}: no query is left; {conflicts[0]}")
    records = cleaned
    left_out = [*reading.left_out, *conflicts]
    # Sets of the user's own come first: what they share with the training data leaves the training data.
    named = {name: _named(paths, of, left_out) for name, paths in _named_paths(of).items()}
    taken_out = 0
    for one in named.values():
        records, removed = without_shared(records, one.records)
        taken_out += removed
    shares = (0.0 if "validation" in named else of.validation_share, 0.0 if "forgetting" in named else of.heldout_share)
    split = split_records(records, shares, settings.seed)
    validation = named["validation"].records if "validation" in named else split.validation
    forgetting = named["forgetting"].records if "forgetting" in named else split.heldout
    # Random and mined negatives of training come from its own side and the corpus, never another side's answers.
    pool = passages_of(split.train, reading.pool)
    elsewhere = {fold(one.text) for record in (*validation, *forgetting) for one in record.positives}
    pool = [one for one in pool if fold(one.text) not in elsewhere]
    mined = mine(split.train, pool, of.mining) if of.mining else _nothing(split.train)
    every = passages_of(cleaned, reading.pool)
    lists = {
        name: _lists(of_name, passages_of(of_name, named[name].pool) if name in named else every, settings)
        for name, of_name in (("validation", validation), ("forgetting", forgetting))
    }
    counts = {
        "rows": reading.rows,
        "queries": len(split.train) + len(split.validation) + len(split.heldout),
        "left_out": len(left_out),
        "shortened_passages": reading.shortened,
        "taken_out_for_named_sets": taken_out,
        "train": len(split.train),
        "validation": len(validation),
        "forgetting": len(forgetting),
        "components": split.components,
        "largest_component": split.largest,
        "without_negatives": sum(not record.negatives for record in split.train),
        "mined": {"guarded": mined.guarded, "queries_without": mined.none} if of.mining else None,
        "train_shares_with_validation": shared(split.train, validation),
        "train_shares_with_forgetting": shared(split.train, forgetting),
    }
    if not len(pool) > max(len(record.positives) for record in split.train):
        raise BadInput(f"{', '.join(map(str, of.train))}: the training queries have no passage that is no answer")
    digest = _digest(split, validation, forgetting)
    return RunData(split.train, mined, pool, lists["validation"], lists["forgetting"], left_out, counts, digest)


def _named_paths(of: DataSettings) -> dict[str, list[Path]]:
    return {name: paths for name, paths in (("validation", of.validation), ("forgetting", of.forgetting)) if paths}


def _named(paths: Sequence[Path], of: DataSettings, left_out: list[LeftOut]) -> Reading:
    reading = read_data(paths, of.qrels, of.corpus)
    reading.records, conflicts = clean(reading.records)
    left_out += [*reading.left_out, *conflicts]
    if not reading.records:
        raise BadInput(f"{', '.join(map(str, paths))}: no query is left")
    return reading


def _lists(records: Sequence[Record], passages: Sequence[Passage], settings: RunSettings) -> list[Group]:
    """Return candidate lists. `passages`: of the same files, for mined and random candidates."""
    mined = mine(records, passages, settings.data.mining) if settings.data.mining else _nothing(records)
    return candidate_lists(records, mined.negatives, passages, settings.data.candidates, settings.seed)


def _nothing(records: Sequence[Record]) -> Mined:
    return Mined([() for _ in records])


def _digest(split: Split, validation: Sequence[Record], forgetting: Sequence[Record]) -> str:
    digest = hashlib.sha256()
    for part in (split.train, validation, forgetting):
        for record in part:
            texts = [record.query, *(f"{one.text}\0{one.score}" for one in (*record.positives, *record.negatives))]
            digest.update(json.dumps([len(record.positives), *texts], ensure_ascii=False).encode("utf-8", "replace"))
        digest.update(b"\1")
    return digest.hexdigest()
