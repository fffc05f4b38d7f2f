"""One order out of the channels: a convex combination of their normalised scores.

TM2C2 of Bruch, Gai & Ingber 2023 (An Analysis of Fusion Functions for Hybrid Retrieval, ACM TOIS 42(1)):

    fused(q, p) = (1 - d)·x_keyword(q, p) + d·x_dense(q, p),    x = (f(q, p) - m) / (best f of the channel - m)

m is what a passage drawn at random has, not the least score found, which would depend on how many are looked at.
BM25: 0. Dense: the query's mean cosine over the knowledge base's passages, which is its product with their mean
vector. (The paper takes the least possible cosine, -1. Trained models use a narrow range far above it: with -1,
nDCG@10 of multilingual-e5-small on real medical questions is .26 at d = .7, with the mean it is .33.)

A passage that a channel did not find has its last one's share there: at most that, and more than nothing. Where the
channel has no more to give (BM25, fewer passages that share a word than were asked for) it has 0.

Questions (Doc2Query) are further keys of their passage: its best key counts, a question's share times `questions`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from rag.catalogue.records import RowKey, StoredPassage
from rag.index.engine import ScoredRow

METHOD = "tm2c2"
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """`dense`: its part of the score, in [0, 1]; the keyword channel has the rest. `questions`: what a question's match
    counts of a passage's own, in [0, 1]. `rerank`: the cross-encoder's part of the final order, in [0, 1]; the fused
    score has the rest."""

    dense: float
    questions: float = 1.0
    rerank: float = 1.0

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in asdict(self).items())


@dataclass(frozen=True, slots=True)
class ChannelRank:
    """`rank` from 1; `score` is the channel's own, comparable within one channel of one search."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class ChannelRows:
    """What one channel found for a query, best first. `least`: the score of a passage drawn at random. `is_cut`: there
    was more to find."""

    rows: Sequence[ScoredRow]
    least: float
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Of one channel, passage id → its rank and score, its share in [0, 1], and the row that found it; best first.
    `missing`: the share of any other passage."""

    ranks: dict[int, ChannelRank]
    shares: dict[int, float]
    rows: dict[int, RowKey]
    missing: float


def by_passage(
    channel: ChannelRows, behind: Mapping[RowKey, StoredPassage], depth: int, questions: float = 1.0
) -> Found:
    """Return the best key of each passage, `depth` passages at most; rows whose passage is gone are passed over.

    Args:
        questions: what a question's share counts (`FusionWeights`).
    """
    here = [(RowKey(row.row_id, row.is_question), row.score) for row in channel.rows]
    known = [(key, score) for key, score in here if key in behind]
    if not known:
        return Found({}, {}, {}, 0.0)
    best = max(score for _, score in known)
    room = best - channel.least
    # All alike, or no better than chance: what was found counts as found.
    shares = [(key, score, (score - channel.least) / room if room > 0 else 1.0) for key, score in known]
    weighed = [(key, score, share * questions if key.is_question else share) for key, score, share in shares]
    if questions < 1:
        weighed.sort(key=lambda row: -row[2])
    found = Found({}, {}, {}, 0.0)
    for key, score, share in weighed:
        passage = behind[key].id
        if passage in found.ranks:
            continue
        if len(found.ranks) == depth:
            break
        found.ranks[passage] = ChannelRank(len(found.ranks) + 1, round(score, 6))
        found.shares[passage] = max(share, 0.0)
        found.rows[passage] = key
    cut = channel.is_cut or len(found.ranks) == depth
    return Found(found.ranks, found.shares, found.rows, min(found.shares.values()) if cut else 0.0)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the channels found before it is fused, and the passages behind the rows. `depth`: passages of a channel."""

    channels: dict[str, ChannelRows]
    behind: dict[RowKey, StoredPassage]
    depth: int

    def found(self, weights: FusionWeights) -> dict[str, Found]:
        return {
            name: by_passage(rows, self.behind, self.depth, weights.questions) for name, rows in self.channels.items()
        }


def fuse(channels: Iterable[tuple[Mapping[Item, float], float, float]]) -> dict[Item, float]:
    """Combine channels: each its shares in [0, 1] by item, the share of an item that it did not find, and its weight.

    Returns item → Σ weight · share / Σ weight in [0, 1], best first; equal scores in the order of first appearance.
    Where all weights are 0 the channels weigh alike.
    """
    given = list(channels)
    total = sum(weight for _, _, weight in given)
    scores: dict[Item, float] = dict.fromkeys((item for shares, _, _ in given for item in shares), 0.0)
    for shares, missing, weight in given:
        part = weight / total if total else 1 / len(given)
        for item in scores:
            scores[item] += part * shares.get(item, missing)
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))


def fuse_channels(found: Mapping[str, Found], weights: FusionWeights) -> dict[int, float]:
    """Fuse what the channels `keyword` and `dense` found: passage id → score in [0, 1], best first."""
    parts = {"keyword": 1 - weights.dense, "dense": weights.dense}
    return fuse((one.shares, one.missing, parts[name]) for name, one in found.items())


def final_order(fused: Mapping[int, float], judged: Mapping[int, float], weights: FusionWeights) -> list[int]:
    """Order passages by the cross-encoder's scores in [0, 1] and their fused ones, as `weights.rerank` has it."""
    part = weights.rerank
    return sorted(judged, key=lambda i: -(part * judged[i] + (1 - part) * fused[i]))
