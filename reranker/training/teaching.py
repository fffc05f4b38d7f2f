"""The teacher's scores that MarginMSE learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reranker.data.records import LeftOut, Record
from reranker.data.sampling import Group, Sampler
from reranker.modelling.export import open_folder
from reranker.modelling.scoring import logits
from reward.records.files import BadInput


def scored_records(records: Sequence[Record]) -> tuple[list[Record], list[LeftOut]]:
    """Return the records with their scored passages only; a record needs a scored answer and a scored negative."""
    kept, left_out = [], []
    for record in records:
        positives = tuple(one for one in record.positives if one.score is not None)
        negatives = tuple(one for one in record.negatives if one.score is not None)
        if positives and negatives:
            kept.append(replace(record, positives=positives, negatives=negatives))
        else:
            side = "negatives" if positives else "positives"
            left_out.append(LeftOut(record.source, side, "no passage has a teacher's score"))
    if not kept:
        raise BadInput(
            f"{left_out[0].where}: {left_out[0].field}: margin_mse needs a teacher's scores: "
            "write `score` to the passages, or name training.teacher"
        )
    return kept, left_out


class TaughtSampler(Sampler):
    """Groups whose passages a teacher has scored, each pair once in a run."""

    def __init__(self, sampler: Sampler, teacher: Path) -> None:
        self._sampler = sampler
        self._known: dict[tuple[str, str], float] = {}
        try:
            self._teacher = open_folder(teacher)
        except Exception as error:  # every library below has exceptions of its own for a broken folder
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise BadInput(f"training.teacher: {teacher}: no model that can be loaded ({reason})") from None

    def __len__(self) -> int:
        return len(self._sampler)

    def groups(self, epoch: int) -> list[Group]:
        drawn = self._sampler.groups(epoch)
        pairs = {(group.query, one.text): None for group in drawn for one in group.passages}
        new = [pair for pair in pairs if pair not in self._known]
        self._known |= dict(zip(new, logits(self._teacher, new).tolist(), strict=True))
        return [
            replace(
                group,
                passages=tuple(replace(one, score=self._known[group.query, one.text]) for one in group.passages),
            )
            for group in drawn
        ]
