"""Fixed pairs whose scores are a reranker's fingerprint: are these the weights, the tokenizer and the head that were
checked, also where a file was exchanged, an adapter merged with another tokenizer, or a server given another model?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from rag.models.failure import ModelFailure
from rag.models.reranker import Reranker

# (query, passage, whether it answers)
PAIRS = (
    ("鱼油怎么吃", "鱼油建议每日两粒，随餐服用，温水送服。", True),
    ("鱼油怎么吃", "未拆封的产品七天内可以退货。", False),
    ("糖尿病人能吃蜂蜜吗", "糖尿病患者应限制蜂蜜等高糖食物，以免血糖升高。", True),
    ("糖尿病人能吃蜂蜜吗", "考研英语课程含真题精讲。", False),
    ("孕妇可以吃退烧药吗", "孕妇发热用药前请先咨询医生。", True),
    ("孕妇可以吃退烧药吗", "下单时填写抬头即可开具电子发票。", False),
    ("how to renew a passport", "Passports are renewed at the post office with form DS-82.", True),
    ("how to renew a passport", "Omega-3 capsules: one a day with a meal.", False),
    ("who wrote Hamlet", "Hamlet is a tragedy by William Shakespeare.", True),
    ("who wrote Hamlet", "The warranty covers two years.", False),
)
TOLERANCE = 1e-3  # what threads, batches and processors add to a score


async def canary_scores(reranker: Reranker) -> tuple[float, ...]:
    """Return the scores of `PAIRS`, in [0, 1].

    Raises:
        ModelFailure: the model gave no usable scores, or one and the same for all.
    """
    scores = [float((await reranker.score(query, "", [passage]))[0]) for query, passage, _ in PAIRS]
    if np.ptp(scores) < TOLERANCE:
        raise ModelFailure(f"{reranker.id}: gives every canary pair the score {scores[0]:.3f}: is it trained?")
    return tuple(scores)


def drift(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the largest difference of two canaries, infinity where they are of different pairs."""
    if len(before) != len(after):
        return float("inf")
    return float(np.abs(np.subtract(before, after)).max(initial=0.0))


def agreement(before: Sequence[float], after: Sequence[float]) -> float:
    """Return Spearman's correlation of two canaries; 0 where they are of different pairs."""
    return float(spearmanr(before, after).statistic) if len(before) == len(after) else 0.0


def misordered(scores: Sequence[float]) -> int:
    """Count the queries whose answer scores no higher than the other passage."""
    return sum(scores[place] <= scores[place + 1] for place in range(0, len(PAIRS), 2))
