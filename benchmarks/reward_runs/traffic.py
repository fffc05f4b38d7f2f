"""The rollouts that every system of the benchmark scores, and how long the services take for each text. Seeded.

Each distinct rewrite bears a code word, `款` and five Chinese ordinals. By it the services recognise a text in any
prompt, so that all systems see the same latency for the same work.

When rollouts finish: the rollout engine admits one prompt after the other (continuous batching), spread evenly over
`ADMISSION_SECONDS`; a rewrite of some 20 tokens takes about half a second to decode, so that the rollouts of one prompt
finish close together.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.reward_runs.list_scheduling import Job, lower_bound
from reward.records.sample import Candidates, Context, Metadata, Sample

PROMPTS, GROUP_SIZE, REPEATED = 64, 8, 0.25
JUDGE_LIMIT, RAG_LIMIT = 64, 10
JUDGE_SECONDS, JUDGE_SIGMA = 0.8, 0.5  # mean, and spread of the logarithm
RAG_SECONDS, RAG_SIGMA = 0.15, 0.3
ADMISSION_SECONDS = 4.0
DECODING_SECONDS, DECODING_SIGMA = 0.5, 0.15

_ORDINALS = "甲乙丙丁戊己庚辛壬癸"
_CODE = re.compile(f"款[{_ORDINALS}]{{5}}")
_SUBJECTS = ("钙片", "鱼油", "蛋白粉", "益生菌", "维生素", "叶黄素", "辅酶", "氨糖")
_QUESTIONS = ("饭前还是饭后吃好", "和别的一起吃行吗", "吃多久能看到效果", "上班忙老忘记怎么安排", "哪种更适合我爸妈")
_REWRITES = ("服用时间 空腹 餐后 建议", "搭配服用 间隔 注意事项", "见效周期 疗程 说明", "每日用量 安排 提醒方法")


@dataclass(frozen=True)
class Arrival:
    """A rollout, and when it is finished: seconds from the first one. `prompt` is its group's number."""

    prompt: int
    sample: Sample
    completion: str
    seconds: float


def make_sample(prompt: int, baseline: int) -> Sample:
    """Make a prompt as the exports of a production system have it, with the recorded rewrite number `baseline`."""
    subject, question = _SUBJECTS[prompt % len(_SUBJECTS)], _QUESTIONS[prompt % len(_QUESTIONS)]
    context = Context(
        user_profile="中年女性，办公室工作，平时睡得晚，关注骨骼和睡眠，之前买过两次，价格敏感，喜欢问清楚再下单。",
        history_summary=f"顾客先问了{subject}的配料和产地，客服介绍了规格与发货时间，顾客表示家里老人也想一起吃。",
        history_context=f"用户: 你们家{subject}是哪里产的\n助手: 是自有工厂生产的，包装上有产地说明。\n用户: 再想想",
    )
    return Sample(
        sample_id=f"bench_{prompt:06d}",
        original_query=f"我买的那个{subject}{question}啊，第{_code(prompt)[1:]}单",
        context=context,
        metadata=Metadata(tenant_id="fivedoctors", top1_score=(prompt * 37 % 100) / 100),
        candidates=Candidates(baseline=make_rewrite(prompt, baseline)),
    )


def make_rewrite(prompt: int, number: int) -> str:
    """Write rewrite number `number`; no two numbers give the same text."""
    return f"{_SUBJECTS[prompt % len(_SUBJECTS)]} {_REWRITES[number % len(_REWRITES)]} {_code(number)}"


def make_traffic(seed: int, scale: float = 1.0, prompts: int = PROMPTS) -> list[Arrival]:
    """Return one training step's rollouts in the order they finish: `prompts` groups, of each a quarter repeated
    rewrites.

    Args:
        scale: factor on all times.
    """
    chance = random.Random(f"traffic {seed}")
    fresh = round(GROUP_SIZE * (1 - REPEATED))
    arrivals = []
    for prompt in range(prompts):
        first = prompt * (fresh + 1)
        sample = make_sample(prompt, first)
        numbers = [first + 1 + i for i in range(fresh)]
        numbers += chance.choices(numbers, k=GROUP_SIZE - fresh)
        chance.shuffle(numbers)
        admitted = ADMISSION_SECONDS * prompt / prompts
        for number in numbers:
            decoding = chance.lognormvariate(math.log(DECODING_SECONDS), DECODING_SIGMA)
            arrivals.append(Arrival(prompt, sample, make_rewrite(prompt, number), admitted + decoding))
    arrivals.sort(key=lambda arrival: arrival.seconds)
    return [replace(arrival, seconds=scale * (arrival.seconds - arrivals[0].seconds)) for arrival in arrivals]


def codes_in(text: str) -> list[str]:
    """Return the code words of the rewrites in a request."""
    return _CODE.findall(text)


def judge_seconds(seed: int, code: str) -> float:
    return _latency(f"judge {seed} {code}", JUDGE_SECONDS, JUDGE_SIGMA)


def rag_seconds(seed: int, code: str) -> float:
    return _latency(f"rag {seed} {code}", RAG_SECONDS, RAG_SIGMA)


def unique_calls(traffic: Sequence[Arrival]) -> dict[str, float]:
    """Return what has to be judged and retrieved at least, each text once: code word -> when its first rollout
    finished.

    The baseline's rewrite of a prompt is wanted as soon as the first rollout of that prompt is there.
    """
    first: dict[str, float] = {}
    for arrival in traffic:
        for text in (arrival.completion, arrival.sample.candidates.baseline):
            [code] = codes_in(text)
            first.setdefault(code, arrival.seconds)
    return first


def computed_floor(traffic: Sequence[Arrival], seed: int, scale: float) -> float:
    """Compute the seconds from the first rollout below which no system can have scored all of `traffic`
    (`lower_bound`).

    The two services work side by side, and no call waits for another one's answer: the slower service decides.
    """
    calls = unique_calls(traffic).items()
    judge = [Job(seconds, scale * judge_seconds(seed, code)) for code, seconds in calls]
    rag = [Job(seconds, scale * rag_seconds(seed, code)) for code, seconds in calls]
    return max(lower_bound(judge, JUDGE_LIMIT), lower_bound(rag, RAG_LIMIT))


def _latency(key: str, mean: float, sigma: float) -> float:
    return random.Random(key).lognormvariate(math.log(mean) - sigma**2 / 2, sigma)


def _code(number: int) -> str:
    return "款" + "".join(_ORDINALS[int(digit)] for digit in f"{number:05d}")
