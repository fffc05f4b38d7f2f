"""Rollouts as a run logs them, for the tests of what reads the log."""

import itertools
import random
from pathlib import Path

from reward.records.outcome import Abstained, AbstainReason, Evidence, Findings, Judgement, Outcome, Rollout, Verdict
from reward.records.sample import Hit, Metadata, Sample
from reward.rewrite.combination import check_text, combine
from reward.rollouts.rollout_log import FOLDER, RolloutLog
from reward.settings.recipe import RewardSettings
from reward.text.terms import Lexicon

PRODUCTS = ("鱼油", "钙片", "益生菌", "葡萄籽", "蛋白粉", "辅酶", "叶黄素", "维生素", "褪黑素", "氨糖")
LEXICON = Lexicon.of({"孕妇": ["怀孕"], "糖尿病": ["血糖高"]}, {product: [] for product in PRODUCTS})
WORDINGS = {
    "孕妇能吃{}吗": "孕妇适用",
    "{}要怎么吃才对呢": "用法用量",
    "{}一次吃3粒行不行": "每次3粒 用量",
    "想问下{}有什么用": "功效作用",
    "买了{}放多久会坏": "保质期",
    "{}和药一起吃有事吗": "药物相互作用",
}


def make_sample(number: int, **update) -> Sample:
    product, (wording, _) = PRODUCTS[number % len(PRODUCTS)], _intent(number)
    values = {
        "sample_id": f"fivedr_rl_{number:03d}",
        "original_query": wording.format(product),
        "metadata": Metadata(tenant_id="fivedoctors"),
        "relevant_doc_ids": (f"p{number}",),
    }
    return Sample(**(values | update))


def good_rewrite(number: int) -> str:
    return f"{PRODUCTS[number % len(PRODUCTS)]} {_intent(number)[1]}"


def _intent(number: int) -> tuple[str, str]:
    return list(WORDINGS.items())[number // len(PRODUCTS) % len(WORDINGS)]


def evidence(rank: int | None, top1: float = 0.8) -> Evidence:
    scores = (top1, top1 - 0.1, top1 - 0.2)
    hits = [Hit(content="", reranker_score=s, doc_id=f"d{i}") for i, s in enumerate(scores, start=1)]
    return Evidence(top_hits=tuple(hits), rank=rank)


def pointwise(policy: int, baseline: int, intent: int = 5) -> Judgement:
    verdict = Verdict(quality=policy, domain=policy, intent=intent, retrievability=policy, reason="更清楚")
    return Judgement(mode="pointwise", policy=verdict, policy_score=policy, baseline_score=baseline, intent=intent)


def make_rollout(
    number: int = 0,
    step: int = 1,
    rewrite: str | None = None,
    rank: int | None = 2,
    baseline_rank: int | None = 3,
    plain_rank: int | None = 50,
    top1: float = 0.8,
    judgement: Judgement | None = None,
    settings: RewardSettings | None = None,
    sample: Sample | None = None,
    failed: AbstainReason | None = None,
) -> Rollout:
    """A rollout scored as the scorer does, under `settings` (no shaping); `failed` says which call failed."""
    settings, sample = settings or RewardSettings(), sample or make_sample(number)
    rewrite = good_rewrite(number) if rewrite is None else rewrite
    record = {"step": step, "time": 1e9 + step, "sample": sample, "completion": rewrite}
    gated = check_text(settings, LEXICON, sample, rewrite)
    if gated is not None:
        return Rollout(**record, outcome=gated)
    policy = None if failed is AbstainReason.RAG else evidence(rank, top1)
    findings = Findings(
        baseline_rewrite=f"{PRODUCTS[number % len(PRODUCTS)]} 说明",
        policy=policy,
        baseline=evidence(baseline_rank, 0.7),
        plain=evidence(plain_rank, 0.5),
        judgement=None if failed is AbstainReason.JUDGE else judgement,
    )
    if failed is not None:
        outcome: Outcome = Abstained(reason=failed, detail="503 from the service")
    else:
        outcome = combine(settings, sample, rewrite, findings)
    return Rollout(**record, **dict(findings), outcome=outcome)


def healthy_run(steps: int = 40, prompts: int = 16, siblings: int = 8, judged: bool = True, seed: int = 1):
    """A run that learns: ranks and grades rise, siblings grow alike, a few rewrites are gated or lost throughout."""
    chance = random.Random(seed)
    for step, _ in itertools.product(range(1, steps + 1), range(prompts)):
        number = chance.randrange(60)
        skill = 0.3 + 0.5 * step / steps
        for _ in range(siblings):
            is_right = chance.random() < skill
            rank = chance.choice((1, 1, 2)) if is_right else chance.choice((3, 5, 9, 40))
            rewrite = good_rewrite(number) + ("" if is_right else chance.choice((" 价格", " 厂家", " 说明书")))
            if chance.random() < 0.02:
                rewrite = ""
            # A judge that mostly, not always, agrees with retrieval.
            grade = chance.choice((4, 5)) if is_right != (chance.random() < 0.2) else chance.choice((2, 3, 4))
            yield make_rollout(
                number,
                step,
                rewrite=rewrite,
                rank=rank,
                top1=chance.uniform(0.5, 0.9),
                judgement=pointwise(grade, 4) if judged else None,
                failed=AbstainReason.RAG if chance.random() < 0.01 else None,
            )


def write_run(run: Path, rollouts) -> Path:
    log = RolloutLog(run / FOLDER)
    for rollout in rollouts:
        log.append(rollout)
    log.close()
    return run
